"""The kernel of non-maximum suppression against torchvision's operator."""

import pytest
import torch

from atss.modeling.inference import suppress
from atss.modeling.kernels.suppression import suppress_with_triton
from tests.helpers import compiled_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def candidates(num_images, num_boxes, num_classes, seed=0):
    """Overlapping boxes, scores (many of them equal, or 0) and classes."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(num_images, num_boxes, 2, generator=generator) * 100
    sides = torch.rand(num_images, num_boxes, 2, generator=generator) * 40 + 1
    scores = (torch.rand(num_images, num_boxes, generator=generator) * 50).round() / 50
    classes = torch.randint(num_classes, (num_images, num_boxes), generator=generator)
    return torch.cat([low, low + sides], -1), scores.where(scores > 0.3, 0), classes


def best_kept(boxes, scores, classes, iou_threshold, num_classes, number):
    """The same with torchvision."""
    kept = suppress(boxes, scores, classes, iou_threshold, num_classes, number)
    order = torch.sort(scores * kept, dim=1, descending=True, stable=True).indices[:, :number]
    return kept & torch.zeros_like(kept).scatter(1, order, True)


def on_device(boxes, scores, classes, *options):
    return suppress_with_triton(boxes.to(DEVICE), scores.to(DEVICE), classes.to(DEVICE), *options).cpu()


@pytest.mark.parametrize(
    "num_images, num_boxes, num_classes, iou_threshold, number",
    [(2, 1500, 3, 0.6, 50), (1, 10, 1, 0.5, 100), (3, 1025, 80, 0.3, 20), (2, 200, 2, 0.0, 200), (1, 50, 1, 1.0, 50)],
)
def test_the_best_boxes_are_torchvisions(num_images, num_boxes, num_classes, iou_threshold, number):
    found = candidates(num_images, num_boxes, num_classes)

    kept = on_device(*found, iou_threshold, number)

    assert torch.equal(kept, best_kept(*found, iou_threshold, num_classes, number))
    assert kept.sum(1).min() > 0 and kept.sum(1).max() <= number


def test_no_boxes_and_boxes_that_are_not_numbers():
    boxes, scores, classes = candidates(2, 30, 1)
    scores[0] = 0
    scores[1, :2] = 1
    boxes[1, 0] = torch.nan

    kept = on_device(boxes, scores, classes, 0.5, 100)

    assert not kept[0].any(), "a score of 0 means no box"
    assert kept[1, 0] and kept[1, 1], "a box that is not a number neither suppresses nor is suppressed"
    assert torch.equal(kept[1, 1:], on_device(boxes[1:, 1:], scores[1:, 1:], classes[1:, 1:], 0.5, 100)[0])


def test_the_arguments_stay():
    found = candidates(1, 40, 2)
    before = [values.clone() for values in found]

    on_device(*found, 0.5, 10)

    assert all(torch.equal(*pair) for pair in zip(found, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_for_gpus_once(capability):
    """Other numbers of boxes need no other kernel."""
    first, second = compiled_kernels(capability, "suppression")

    assert first["name"] == "keep_best" and first == second
