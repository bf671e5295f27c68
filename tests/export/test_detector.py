"""`ExportedATSS` in PyTorch gives the detections of `ATSS`."""

import sys

import pytest
import torch

from atss.export import ExportedATSS, suppress
from atss.export.verification import match, pick, side_by_side, without_suppression
from atss.modeling.box_coding import BoxCoding, PointCoding
from atss.modeling.inference import Detections
from tests.export.two_levels import make_detector

VARIANTS = {
    "the paper's": {},
    "several anchors per cell": {"ratios": (0.5, 1.0, 2.0)},
    "no centerness": {"centerness": False},
    "no level scalars, no normalisation": {"level_scalars": False, "norm": ""},
    "points": {"box_coding": PointCoding(3.0)},
    "boxes that end with their last pixel": {"box_coding": BoxCoding(pixel_extent=1)},
    "points that end with their last pixel": {"box_coding": PointCoding(3.0, pixel_extent=1)},
    "anchors at the corners of cells": {"anchor_offset": 0.0},
    "chosen by class score": {"selector": {"topk_by_centerness": False, "score_root": False}},
    "clipped at last": {"selector": {"clip_before_nms": False}},
    "few a level": {"selector": {"topk_per_level": 7}},
    "fewer than wanted": {"selector": {"topk_per_level": 7, "max_detections": 50}},
    "another threshold": {"selector": {"nms_threshold": 0.2, "score_threshold": 0.3}},
    "every score": {"selector": {"score_threshold": 0.0}},
    "none": {"selector": {"score_threshold": 1.0}},
}


@torch.no_grad()
def assert_same(detector, images, suppression):
    """What both find in a batch is the same: with suppression in the same order, without it one for one."""
    exported = ExportedATSS(detector, suppression)(*side_by_side(images))
    selector = detector.head.box_selector
    if suppression is None:
        detector.head.box_selector = without_suppression(selector)
    expected = [x["instances"] for x in detector([{"image": image} for image in images])]
    detector.head.box_selector = selector

    for instances, *found in zip(expected, *exported, strict=True):
        wanted = Detections(instances.pred_boxes.tensor, instances.scores, instances.pred_classes)
        there = found[1] > 0
        assert there.sum() == len(instances)
        if suppression is None:
            partner = match(pick(found, there), wanted)
            assert sorted(partner.tolist()) == list(range(len(instances)))
        else:
            torch.testing.assert_close(pick(found, there), wanted)
        boxes, scores, classes = pick(found, ~there)
        assert (boxes == 0).all() and (scores == 0).all() and (classes == -1).all()


@pytest.mark.parametrize("suppression", [suppress, None], ids=["NMS", "no NMS"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_it_finds_what_the_detector_finds(images, variant, suppression):
    detector = make_detector(**variant)
    for batch in (images[:1], images[1:]):
        assert_same(detector, batch, suppression)


def test_every_class_and_hundreds_of_boxes_take_part(images):
    """Else the tests above compare little."""
    _, scores, classes = ExportedATSS(make_detector())(*side_by_side(images))

    assert (scores > 0).sum() > 200 and classes.unique().tolist() == [-1, 0, 1, 2]
    assert scores.max() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 16), (17, 16)])
def test_smallest_images(size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    assert_same(make_detector(), [image], suppress)


def test_shapes_and_types(images):
    for suppression, number in ((None, 2 * 1000), (suppress, 20)):
        boxes, scores, classes = ExportedATSS(make_detector(), suppression)(*side_by_side(images))

        assert boxes.shape == (4, number, 4) and scores.shape == classes.shape == (4, number)
        assert (boxes.dtype, scores.dtype, classes.dtype) == (torch.float32, torch.float32, torch.int64)
    assert (scores[:, 1:] <= scores[:, :-1]).all(), "with suppression the best come first"


def test_the_padding_and_its_size_do_not_matter(images):
    exported, (batch, sizes) = ExportedATSS(make_detector(), suppress), side_by_side(images)
    wider = torch.full((4, 3, 200, 170), 77, dtype=torch.uint8)
    for number, (height, width) in enumerate(sizes.tolist()):
        wider[number, :, :height, :width] = batch[number, :, :height, :width]

    for expected, found in zip(exported(batch, sizes), exported(wider, sizes), strict=True):
        assert torch.equal(expected, found)


def test_without_suppression_everything_is_kept():
    selector = make_detector(selector={"nms_threshold": 0.3}).head.box_selector
    free = without_suppression(selector)

    assert (free.nms_threshold, free.max_detections) == (torch.inf, sys.maxsize)
    assert (selector.nms_threshold, selector.max_detections) == (0.3, 20)
