"""Anchors, assigners, losses and box coding work where Detectron2 is not installed; nothing there looks upward."""

import ast
import subprocess
import sys

import pytest

from tests.helpers import ROOT

MODELING = ROOT / "projects/ATSS/atss/modeling"
WITHOUT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "detectron2":
            raise ImportError(f"No module named {name!r}")

sys.meta_path.insert(0, Hidden())

import torch
from atss.modeling import AnchorGrid, make_cell_anchors
from atss.modeling import anchors, assigners, box_coding, losses
from atss.modeling.assigners import ASSIGNER_REGISTRY

strides = [8, 16, 32, 64, 128]
grid = AnchorGrid([(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)], strides, make_cell_anchors(strides))
gt_boxes = [torch.tensor([[8.0, 8, 72, 60], [40, 30, 120, 118]]), torch.empty(0, 4)]
for name, assigner in ASSIGNER_REGISTRY:
    matches = assigner()(grid, gt_boxes)
    assert matches.shape == (2, len(grid)) and (matches[0] >= 0).any() and (matches[1] < 0).all(), name

matches = assigners.ATSSAssigner()(grid, gt_boxes)
positive = matches >= 0
boxes = grid.boxes().expand(2, -1, -1)
targets = torch.where(positive[..., None], gt_boxes[0][matches.clamp(min=0)], boxes)
for coding in (box_coding.BoxCoding(), box_coding.PointCoding()):
    decoded = coding.decode(coding.encode(targets, boxes), boxes)
    assert torch.allclose(decoded[positive], targets[positive], atol=1e-3)
weights = losses.centerness_targets((boxes[..., :2] + boxes[..., 2:]) / 2, targets)
values = [
    losses.focal_loss(torch.zeros(2, len(grid), 3), torch.zeros_like(matches), positive, matches > -2),
    losses.giou_loss(boxes, targets).sum(),
    losses.smooth_l1_loss(boxes, targets).sum(),
    losses.normalizers(torch.stack([positive.sum(), (weights * positive).sum(), positive.sum()])).sum(),
]
assert all(value.isfinite() for value in values)
assert not any(name.startswith("detectron2.") for name in sys.modules)
print(len(list(ASSIGNER_REGISTRY)), "assigners")
"""


@pytest.mark.slow
def test_the_assigners_and_losses_need_no_detectron2():
    result = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "5 assigners"


def imports_of(path):
    """Names of the modules that a file imports, relative ones with their dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted(MODELING.rglob("*.py")), ids=lambda path: str(path.relative_to(MODELING)))
def test_modeling_imports_nothing_of_the_other_packages_and_what_works_on_tensors_alone_no_detectron2(path):
    parts = path.relative_to(MODELING).parts
    for name in imports_of(path):
        package, dots = name.partition(".")[0], len(name) - len(name.lstrip("."))
        on_tensors_alone = parts[0] in ("anchors.py", "losses.py", "box_coding.py", "assigners")
        if name.lstrip(".") != "errors" or on_tensors_alone:  # errors of the user's input are for every package
            assert dots <= len(parts), f"{name} leaves atss.modeling"
        assert package != "atss", name
        if on_tensors_alone:
            assert package != "detectron2", name
