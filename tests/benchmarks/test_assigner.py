"""The benchmark runs, and what it compares with does the same work."""

import re

import pytest
import torch

import peers
from tests.helpers import run_forked
from tests.modeling.assigners.boxes import grid_of, naive_matches, random_boxes
from tests.modeling.assigners.naive import naive_atss

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("anchors", [{}, {"aspect_ratios": [0.5, 1.0, 2.0]}])
def test_the_full_matrix_algorithm_is_algorithm_1(anchors):
    generator, grid = torch.Generator().manual_seed(2), grid_of(160, 224, **anchors)
    gt_boxes = [random_boxes(generator, count, 160, 224) for count in (7, 0, 12)]

    matches = peers.naive(9)(grid, gt_boxes)

    assert matches.tolist() == naive_matches(naive_atss, grid, gt_boxes, 9, grid.num_per_cell)


def test_it_prints_a_line_for_every_implementation_and_draws(tmp_path):
    image = tmp_path / "time.png"
    result = run_forked(
        "benchmarks/assigner.py", "--objects", 100, 1000, "--batch", 1, "--size", "64x96", "96x128", "--seconds", 0,
        "--anchors", 2, "--plot", image,
    )  # fmt: skip

    lines = result.stdout.splitlines()
    assert sum(bool(re.match(r" +\d+ +torch .* full matrix \d+x$", line)) for line in lines) == 4
    assert sum(line.startswith("floors: writing the result ") for line in lines) == 2
    assert sum("from 100 to 1000 objects per image torch " in line for line in lines) == 2
    assert "the writing of the result aside" in lines[-2]
    assert image.stat().st_size > 10_000


def test_it_measures_every_rule_that_is_asked_for():
    result = run_forked(
        "benchmarks/assigner.py", "--rule", "iou", "scale_range", "center_sampling", "topk_iou", "atss", "--objects", 3,
        "--batch", 2, "--size", "64x96", "--seconds", 0,
    )  # fmt: skip

    parts = result.stdout.split("\n\n")[1:6]
    for rule, part in zip(["iou", "scale_range", "center_sampling", "topk_iou", "atss"], parts, strict=True):
        assert part.startswith(f"{rule}: 2 x 64x96, 1 anchor(s) per location, k = 9, 129 anchors per image")
        # The rules beside ATSS have nothing to compare with but the paper's code.
        last = r"-" if rule != "atss" else r"full matrix \d+x"
        assert len(re.findall(rf"^ +3 +torch +[\d.]+ +[\d.]+ +[\d.]+  {last}$", part, re.MULTILINE)) == 1
        assert ("full matrix" in part) == (rule == "atss")


def test_an_unknown_rule_is_refused():
    result = run_forked("benchmarks/assigner.py", "--rule", "fcos", check=False)

    assert result.returncode == 2 and "argument --rule: invalid choice: 'fcos'" in result.stderr


@pytest.mark.parametrize("script", ["assigner.py", "agreement.py"])
def test_a_folder_that_is_no_checkout_is_named(tmp_path, script):
    result = run_forked(f"benchmarks/{script}", "--paper", tmp_path, check=False)

    assert result.returncode == 1
    assert result.stderr.strip().endswith(
        f"{tmp_path} is not a checkout of the paper's repository: it has no atss_core"
    )
