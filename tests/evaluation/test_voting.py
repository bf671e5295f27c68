"""Box voting against the algorithm written box by box."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss.evaluation.augmentation import vote


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def naive(boxes, scores, classes, threshold, least_soft_score):
    """In each class, group the best box with those that overlap it, until none is left."""
    found = []
    for label in set(classes):
        left = sorted((s, b) for s, b, c in zip(scores, boxes, classes, strict=True) if c == label)
        while left:
            score, leader = left[-1]
            group = [(s, b) for s, b in left if iou(leader, b) > threshold]
            left = [(s, b) for s, b in left if (s, b) not in group]
            total = sum(s for s, _ in group)
            found.append((score, label, [sum(s * b[i] for s, b in group) / total for i in range(4)]))
            if least_soft_score is not None and len(group) > 1:
                soft = [(s * (1 - iou(leader, b)), b) for s, b in group]
                found += [(s, label, b) for s, b in soft if s >= least_soft_score]
    return sorted(found, reverse=True)


def random_boxes(seed, number):
    """Return clustered boxes of three classes, without equal scores."""
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(number, 2, generator=generator) * 4).floor() * 40
    size = 20 + 40 * torch.rand(number, 2, generator=generator)
    corner += 12 * torch.rand(number, 2, generator=generator)
    scores = (torch.randperm(number, generator=generator) + 1.0) / (number + 1)
    return torch.cat([corner, corner + size], 1), scores, torch.randint(0, 3, (number,), generator=generator)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31), number=st.integers(0, 60), threshold=st.floats(0.3, 0.9),
    least=st.one_of(st.none(), st.floats(0.01, 0.3)),
)  # fmt: skip
def test_voting_equals_the_naive_algorithm(seed, number, threshold, least):
    boxes, scores, classes = random_boxes(seed, number)

    found = vote(boxes, scores, classes, threshold, least)

    expected = naive(boxes.tolist(), scores.tolist(), classes.tolist(), threshold, least)
    assert found.scores.tolist() == pytest.approx([s for s, _, _ in expected], abs=1e-5)
    if len({round(s, 4) for s, _, _ in expected}) == len(expected):
        assert found.classes.tolist() == [c for _, c, _ in expected]
        for box, (_, _, other) in zip(found.boxes.tolist(), expected, strict=True):
            assert box == pytest.approx(other, abs=1e-3)


@pytest.mark.parametrize(
    "heights, scores, classes, least, expected",
    [
        ((10, 12, 10), (0.6, 0.3, 0.5), (1, 1, 2), None, [((0.6 * 10 + 0.3 * 12) / 0.9, 0.6, 1), (10, 0.5, 2)]),
        ((10, 14), (0.9, 0.8), (0, 0), 0.05, [((0.9 * 10 + 0.8 * 14) / 1.7, 0.9, 0), (14, 0.8 * (1 - 10 / 14), 0)]),
    ],
    ids=["weighted by score in each class", "soft voting keeps a box with a lower score"],
)
def test_voting_on_boxes_of_several_heights(heights, scores, classes, least, expected):
    boxes = torch.tensor([[0.0, 0, 10, height] for height in heights])

    found = vote(boxes, torch.tensor(scores), torch.tensor(classes), 0.66, least)

    for box, score, label, wanted in zip(*found, expected, strict=True):
        assert [*box.tolist(), score.item(), label.item()] == pytest.approx([0, 0, 10, *wanted])


@pytest.mark.slow
def test_with_many_classes_in_a_large_image_boxes_stay_finite_and_with_their_class():
    """Non-maximum suppression rounds coordinates there: boxes near the threshold may fall on either side."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        corner = torch.rand(800, 2, generator=generator) * torch.tensor([1200.0, 700])
        corner[400:] = corner[:400]
        size = 10 + 100 * torch.rand(800, 2, generator=generator)
        # Second boxes whose IoU with the first is the threshold, or next to it.
        size[400:] = size[:400] * torch.tensor([1.0, 0.66])
        classes = torch.randint(0, 80, (400,), generator=generator).repeat(2)
        scores = torch.rand(800, generator=generator)

        found = vote(torch.cat([corner, corner + size], 1), scores, classes, 0.66, least_soft_score=0.05)

        assert found.boxes.isfinite().all()
        for label in classes.unique():
            low, high = corner[classes == label].amin(0), (corner + size)[classes == label].amax(0)
            boxes = found.boxes[found.classes == label]
            assert (boxes[:, :2] >= low - 0.01).all() and (boxes[:, 2:] <= high + 0.01).all()


def test_boxes_without_overlap_stay_to_the_last_bit():
    boxes, scores, classes = random_boxes(3, 60)
    alone = torch.arange(60.0)[:, None] * 100 + boxes

    found = vote(alone, scores, classes, 0.66, 0.05)

    order = scores.argsort(descending=True)
    assert torch.equal(found.boxes, alone[order]) and torch.equal(found.scores, scores[order])


@pytest.mark.parametrize("least", [None, 0.05])
def test_voting_in_parts_equals_voting_at_once(monkeypatch, least):
    """Large images have so many boxes that not all pairs fit into memory."""
    boxes, scores, classes = random_boxes(5, 200)
    at_once = vote(boxes, scores, classes, 0.5, least)

    monkeypatch.setattr("atss.evaluation.augmentation.MAX_PAIRS", 1000)
    found = vote(boxes, scores, classes, 0.5, least)

    assert all(torch.equal(a, b) for a, b in zip(found, at_once, strict=True))
