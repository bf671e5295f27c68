import pytest
import torch
from torchvision.ops import batched_nms

from atss.export import suppress, suppress_op


def random_batch(num_images, num_boxes, num_classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_images, num_boxes, 2, generator=generator) * 100
    sides = 10 + torch.rand(num_images, num_boxes, 2, generator=generator) * 60
    scores = torch.rand(num_images, num_boxes, generator=generator)
    classes = torch.randint(0, num_classes, (num_images, num_boxes), generator=generator)
    return torch.cat([corners, corners + sides], dim=-1), scores, classes


@pytest.mark.parametrize("function", [suppress, suppress_op])
def test_it_is_torchvisions_image_by_image_and_class_by_class(function):
    boxes, scores, classes = random_batch(3, 200, 5)

    kept = function(boxes, scores, classes, 0.5, 5, 200)

    for image in range(3):
        expected = batched_nms(boxes[image], scores[image], classes[image], 0.5)
        assert kept[image].nonzero().squeeze(1).tolist() == sorted(expected.tolist())


def test_boxes_of_score_0_are_none():
    boxes, scores, classes = random_batch(2, 50, 2)
    scores[:, ::2] = 0

    kept = suppress(boxes, scores, classes, 0.5, 2, 50)

    assert not kept[:, ::2].any()
    assert torch.equal(kept[:, 1::2], suppress(boxes[:, 1::2], scores[:, 1::2], classes[:, 1::2], 0.5, 2, 50))
    assert not suppress(boxes, torch.zeros_like(scores), classes, 0.5, 2, 50).any()


def test_many_classes_and_images_cost_no_precision():
    """IoUs as close to the threshold as float32 tells apart, for the last class of the last of many images."""
    first, second = [1000.0, 1000, 1010, 1010], [1000.0, 1000, 1010, 1005]
    boxes = torch.tensor([first, second]).expand(64, 2, 4)
    scores, classes = torch.tensor([0.9, 0.8]).expand(64, 2), torch.full((64, 2), 1202)

    for threshold, stays in ((0.5 - 1e-6, False), (0.5 + 1e-6, True)):
        kept = suppress(boxes, scores, classes, threshold, 1203, 2)
        assert kept[:, 0].all() and (kept[:, 1] == stays).all()


def test_the_operator_is_a_good_one():
    boxes, scores, classes = random_batch(2, 20, 3)

    torch.library.opcheck(suppress_op, (boxes, scores, classes, 0.5, 3, 20))


def test_an_exported_program_takes_any_number_of_boxes():
    """Also none, and one: what suppression gives is as long as nobody knows before."""

    class Suppression(torch.nn.Module):
        def forward(self, boxes, scores, classes):
            return suppress(boxes, scores, classes, 0.5, 3, 10)

    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Suppression(), random_batch(2, 10, 3), dynamic_shapes=[{0: batch}] * 3).module()

    for num_images, left in ((1, 0), (1, 1), (3, 1), (2, 2), (4, 10)):
        boxes, scores, classes = random_batch(num_images, 10, 3, seed=left)
        scores[1:], scores[:, left:] = 0, 0
        kept = program(boxes, scores, classes)
        assert torch.equal(kept, suppress(boxes, scores, classes, 0.5, 3, 10)) and kept.any() == (left > 0)
