"""The Triton backend against the torch backend: on a GPU where there is one, in Triton's interpreter elsewhere."""

import math

import pytest
import torch

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import ATSSAssigner
from tests.helpers import compiled_kernels
from tests.modeling.assigners.boxes import grid_of, random_boxes

pytestmark = [pytest.mark.slow, pytest.mark.gpu]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def on(device, grid):
    anchors = [anchors.to(device) for anchors in grid.cell_anchors]
    return AnchorGrid(grid.shapes, grid.strides, anchors, grid.offset)


def same_matches(grid, gt_boxes, k=9, ignore_boxes=None):
    """The matches of the Triton backend, once they are those of the torch backend on the CPU."""
    expected = ATSSAssigner(k, "torch")(grid, gt_boxes, ignore_boxes)
    there = [boxes.to(DEVICE) for boxes in gt_boxes]
    regions = ignore_boxes and [boxes.to(DEVICE) for boxes in ignore_boxes]
    matches = ATSSAssigner(k, "triton")(on(DEVICE, grid), there, regions).cpu()
    assert torch.equal(matches, expected)
    return matches


@pytest.mark.parametrize(
    "k, offset, anchors",
    [
        (9, 0.5, {}),
        (1, 0.0, {}),
        (4, 0.5, {"aspect_ratios": [0.5, 1.0, 2.0]}),
        (13, 0.0, {"scales_per_octave": 2}),
        (20, 0.5, {}),
    ],
)
def test_both_backends_give_the_same_matches(k, offset, anchors):
    generator, grid = torch.Generator().manual_seed(k), grid_of(160, 224, offset=offset, **anchors)
    gt_boxes = [random_boxes(generator, count, 160, 224) for count in (7, 0, 1, 16)]

    assert (same_matches(grid, gt_boxes, k) >= 0).any()


def test_the_same_where_everything_ties():
    """Coordinates on cells' centres and corners, identical objects, one inside all its candidates of a level."""
    generator, grid = torch.Generator().manual_seed(1), grid_of(64, 96)
    boxes = (random_boxes(generator, 10, 64, 96) / 8).round() * 8

    same_matches(grid, [torch.cat([boxes, boxes[:3], torch.tensor([[15.3, 15.7, 36.1, 37.9]])])])


@pytest.mark.parametrize("shapes", [[(1, 1)], [(1, 12), (1, 6)], [(3, 2), (2, 1), (1, 1)]])
def test_the_same_on_small_levels_of_any_stride_and_far_outside(shapes):
    generator, strides = torch.Generator().manual_seed(5), [12 * 2**level for level in range(len(shapes))]
    gt_boxes = [random_boxes(generator, 8, 36, 144), random_boxes(generator, 4, 3000, 3000) - 1500]

    same_matches(AnchorGrid(shapes, strides, make_cell_anchors(strides)), gt_boxes)


def test_the_same_with_objects_that_cannot_match_and_ignored_regions():
    generator, grid = torch.Generator().manual_seed(6), grid_of(64, 96, aspect_ratios=[0.5, 1.0])
    bad = torch.tensor([[5.0, 5, 5, 9], [math.nan, 0, 9, 9], [-math.inf, 0, math.inf, 9]])
    gt_boxes = [torch.cat([bad, random_boxes(generator, 6, 64, 96)]), bad, torch.empty(0, 4)]
    regions = [random_boxes(generator, count, 64, 96) for count in (2, 1, 1)]

    assert {-2, -1, 5} <= set(same_matches(grid, gt_boxes, ignore_boxes=regions).flatten().tolist())


@pytest.mark.parametrize("gt_boxes", [[], [torch.empty(0, 4)] * 2])
def test_no_objects_and_no_images(gt_boxes):
    same_matches(grid_of(32, 32), gt_boxes)


def test_boxes_of_any_layout_and_precision():
    grid, boxes = grid_of(64, 64), torch.tensor([[3.0, 5, 41, 50], [20.0, 12, 60, 30]])
    gt_boxes = [boxes.half(), boxes.t().contiguous().t(), boxes.double(), boxes.repeat(1, 2)[:, 4:]]

    matches = same_matches(grid, gt_boxes)

    assert (matches == matches[0]).all()


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_gpus_once_and_without_fused_arithmetic(capability):
    """No GPU is needed to compile. Other numbers of objects and other sizes of images need no other kernels."""
    kernels = compiled_kernels(capability, "assigner")

    assert [kernel["name"] for kernel in kernels] == ["find_positives", "resolve_conflicts"] * 2
    assert kernels[:2] == kernels[2:], "a second batch compiled other kernels"
    for kernel in kernels:
        assert not kernel["fused"] and kernel["shared"] <= 48 * 1024


def test_what_does_not_fit_a_gpu_is_refused():
    grid = grid_of(32, 32, aspect_ratios=[0.5, 0.7, 1.0, 1.4, 2.0])

    with pytest.raises(ValueError, match=r"^backend: 'triton' has no room for so many candidates"):
        ATSSAssigner(64, "triton")(on(DEVICE, grid), [torch.empty(0, 4, device=DEVICE)])


@ON_GPU
def test_nothing_waits_for_the_gpu_and_a_graph_replays_with_new_boxes():
    generator, grid = torch.Generator().manual_seed(0), grid_of(160, 224)
    batches = [[random_boxes(generator, count, 160, 224) for count in (7, 0, 20)] for _ in range(2)]
    there, assigner = on(DEVICE, grid), ATSSAssigner(9, "triton")
    static = [boxes.to(DEVICE) for boxes in batches[0]]
    assigner(there, static)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assigner(there, static)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        matches = assigner(there, static)

    for batch in batches:
        for boxes, new in zip(static, batch, strict=True):
            boxes.copy_(new)
        graph.replay()
        assert torch.equal(matches.cpu(), ATSSAssigner(9, "torch")(grid, batch))


@ON_GPU
def test_auto_is_triton_on_a_gpu_and_runs_agree():
    generator, grid = torch.Generator().manual_seed(0), grid_of(800, 1344)
    gt_boxes = [random_boxes(generator, 500, 800, 1344) for _ in range(4)]
    there, boxes = on(DEVICE, grid), [boxes.to(DEVICE) for boxes in gt_boxes]
    expected = ATSSAssigner()(grid, gt_boxes)

    for _ in range(20):
        assert torch.equal(ATSSAssigner()(there, boxes).cpu(), expected)
    assert torch.equal(ATSSAssigner(backend="torch")(there, boxes).cpu(), expected)
