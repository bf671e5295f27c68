"""Every loss against its formula, written out one anchor at a time."""

import math

import pytest
import torch

from atss.modeling.losses import centerness_targets, focal_loss, giou_loss, normalizers
from tests.processes import normalizers_of_process


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.6, 1.5)])
def test_focal_loss(alpha, gamma):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64) * 4
    classes = torch.randint(0, 3, (2, 7), generator=generator)
    positive = torch.rand(2, 7, generator=generator) < 0.4
    valid = (torch.rand(2, 7, generator=generator) < 0.8) | positive

    expected = 0.0
    for n in range(2):
        for r in range(7):
            for c in range(3):
                p = 1 / (1 + math.exp(-logits[n, r, c].item()))
                if positive[n, r] and classes[n, r] == c:
                    expected += -alpha * (1 - p) ** gamma * math.log(p)
                elif valid[n, r]:
                    expected += -(1 - alpha) * p**gamma * math.log(1 - p)

    assert positive.any() and (~valid).any()
    assert focal_loss(logits, classes, positive, valid, alpha, gamma).item() == pytest.approx(expected, rel=1e-12)


def test_gradient_of_the_focal_loss():
    logits = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    classes, positive = torch.tensor([[0, 1, 0, 0]]), torch.tensor([[True, True, False, False]])
    valid = torch.tensor([[True, True, True, False]])

    assert torch.autograd.gradcheck(lambda x: focal_loss(x, classes, positive, valid), logits)
    focal_loss(logits, classes, positive, valid).backward()
    assert (logits.grad[0, 3] == 0).all(), "an ignored anchor gives no gradient"


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_focal_loss_of_extreme_logits_is_finite_with_finite_gradient(logit):
    logits = torch.full((1, 2, 2), logit, requires_grad=True)

    loss = focal_loss(logits, torch.zeros(1, 2).long(), torch.tensor([[True, False]]), torch.ones(1, 2).bool())
    loss.backward()

    assert loss.isfinite() and logits.grad.isfinite().all()


def naive_giou(a, b):
    def area(x1, y1, x2, y2):
        return max(0, x2 - x1) * max(0, y2 - y1)

    intersection = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - intersection
    enclosing = area(min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    return intersection / union - (enclosing - union) / enclosing


def test_giou_loss():
    corners = torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    sides = torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 60 + 1
    boxes, targets = torch.cat([corners, corners + sides], dim=-1).unbind(1)

    expected = [1 - naive_giou(a, b) for a, b in zip(boxes.tolist(), targets.tolist(), strict=True)]

    torch.testing.assert_close(giou_loss(boxes, targets), torch.tensor(expected, dtype=torch.float64))
    assert min(expected) < 1 < max(expected), "overlapping and distant pairs are among them"


def test_giou_loss_of_equal_and_of_empty_boxes():
    box = torch.tensor([10.0, 10, 20, 30])
    point = torch.tensor([10.0, 10, 10, 10], requires_grad=True)

    assert giou_loss(box, box).item() == pytest.approx(0, abs=1e-6)
    loss = giou_loss(point, box)
    loss.backward()
    assert loss.isfinite() and point.grad.isfinite().all()


def test_centerness():
    point, box = torch.tensor([30.0, 20]), torch.tensor([10.0, 10, 70, 50])
    left, top, right, bottom = 20, 10, 40, 30

    expected = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))

    assert centerness_targets(point, box).item() == pytest.approx(expected)
    assert centerness_targets(torch.tensor([40.0, 30]), box).item() == 1, "at the centre"
    assert centerness_targets(torch.tensor([10.0, 30]), box).item() == 0, "on the border"
    assert centerness_targets(torch.tensor([0.0, 30]), box).item() == 0, "outside"


def test_normalizers_of_one_process():
    assert normalizers(torch.tensor([2.0, 0.75, 2.0])).tolist() == [2, 0.75, 2]
    assert normalizers(torch.zeros(3)).tolist() == pytest.approx([1, 1e-6, 1]), "also without positives, to divide by"


@pytest.mark.slow
def test_normalizers_are_averaged_over_processes(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(normalizers_of_process, (2, tmp_path / "store", (7, 0), results), nprocs=2)
        assert dict(results) == {0: [3.5, 1.75, 3.5], 1: [3.5, 1.75, 3.5]}
