"""Multi-scale testing: one view equals the plain model, several are merged, evaluation and prediction use it."""

from functools import partial

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from atss.data import EvalResize, read_dataset, test_loader
from atss.engine import Trainer
from atss.evaluation import MultiScaleTest
from atss.evaluation.augmentation import View, nms
from atss.modeling.box_coding import BoxCoding
from atss.modeling.inference import resize_boxes
from atss.predictor import Predictor

FIRES = {"MODEL.ATSS.SCORE_THRESH_TEST": 0.005}
keep_all = partial(nms, threshold=1.0)
test_loader.__test__ = False  # a loader of test images, not a test


def of_test_aug(settings):
    return {f"TEST.AUG.{key}": value for key, value in settings.items()}


@pytest.mark.parametrize("merge", ["nms", "vote", "soft_vote"])
@pytest.mark.parametrize("extent", [0, 1])
def test_one_view_equals_the_plain_model(tiny_config, merge, extent):
    plain = tiny_config({**FIRES, "MODEL.ATSS.PIXEL_EXTENT": extent})
    one_view = {"ENABLED": True, "MIN_SIZES": (160,), "FLIP": False, "MERGE": merge}
    cfg = tiny_config({**FIRES, "MODEL.ATSS.PIXEL_EXTENT": extent, **of_test_aug(one_view)})
    model = build_model(plain).eval()
    several = MultiScaleTest.of(cfg, model)

    found = expected = 0
    with torch.no_grad():
        for x, y in zip(test_loader(plain, "tiny_val"), test_loader(cfg, "tiny_val"), strict=True):
            a, b = (run(batch)[0]["instances"] for run, batch in ((model, x), (several, y)))
            assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
            assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)
            assert a.image_size == b.image_size
            found, expected = found + len(b), expected + len(a)
    assert found == expected > 100


class Finder(nn.Module):
    """Detects the bright rectangle of an image, and records its input images."""

    def __init__(self):
        super().__init__()
        self.head = nn.Module()
        self.head.box_coding = BoxCoding()
        self.seen = []

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        self.seen.append(x["image"])
        rows, columns = (x["image"][0] > 128).nonzero(as_tuple=True)
        found = Instances((x["height"], x["width"]))
        boxes = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.scores = torch.full((len(found.pred_boxes),), 0.5 + 0.01 * len(self.seen))
        found.pred_classes = torch.zeros(len(found.pred_boxes), dtype=torch.int64)
        return [{"instances": found}]

    def to_instances(self, detections, image_size, size):
        boxes = Boxes(resize_boxes(detections.boxes, image_size, size))
        return Instances(size, pred_boxes=boxes, scores=detections.scores, pred_classes=detections.classes)


def detect(sizes, merge=keep_all, box=(10, 20, 30, 50), ranges=None, flips=(False, True), **options):
    """Multi-scale testing of a `Finder` on an image with a bright box; returns the `Instances` and the `Finder`."""
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    ranges = ranges or [(0, np.inf)] * len(sizes)
    views = [View(EvalResize(s, 10000), flip, *r) for s, r in zip(sizes, ranges, strict=True) for flip in flips]
    finder = Finder()
    (found,) = MultiScaleTest(finder, views, merge, **options)([{"image": image, "height": 120, "width": 160}])
    return found["instances"], finder


def test_boxes_of_every_view_are_mirrored_back_and_resized():
    found, finder = detect((60, 120, 180))

    assert [tuple(image.shape[1:]) for image in finder.seen] == [(60, 80)] * 2 + [(120, 160)] * 2 + [(180, 240)] * 2
    assert torch.equal(finder.seen[1], finder.seen[0].flip(2))
    assert found.image_size == (120, 160) and len(found) == 6
    assert (found.pred_boxes.tensor - torch.tensor([20.0, 40, 60, 100])).abs().max() <= 1
    assert (found.scores[:-1] >= found.scores[1:]).all()


def test_a_view_keeps_boxes_in_its_range_of_sizes():
    """The box is 24.5 pixels wide in the original, in geometric mean, and 49 at twice the size."""
    found, _ = detect((60, 120), ranges=[(0, 20), (0, 50)])

    assert len(found) == 2, "only the second scale and its mirror"


def test_boxes_are_merged_and_limited():
    merged, _ = detect((60, 120), partial(nms, threshold=0.6))
    limited, _ = detect((60, 120), max_detections=3)
    nothing, _ = detect((60, 120), box=(0, 0, 0, 0))

    assert merged.scores.tolist() == pytest.approx([0.54])
    assert len(limited) == 3 and len(nothing) == 0


def test_one_view_is_not_merged_again():
    """The boxes of the plain model stay, even where merging would remove some."""
    assert len(detect((60,), lambda *x: 1 / 0, flips=(False,))[0]) == 1


def test_views_follow_the_config(tiny_config):
    ranges = [[0, 10000], [96, 10000], [0, 64]]
    aug = {"ENABLED": True, "MIN_SIZES": (160, 80, 320), "MAX_SIZE": 500, "BOX_RANGES": ranges, "MERGE": "soft_vote"}
    cfg = tiny_config(of_test_aug(aug))

    several = MultiScaleTest.of(cfg, build_model(cfg))

    assert [(v.resize.min_size, v.resize.max_size, v.flip) for v in several.views] == [
        (160, 192, False), (160, 192, True), (80, 192, False), (80, 192, True), (320, 500, False), (320, 500, True)
    ]  # fmt: skip
    assert [[v.low, v.high] for v in several.views[::2]] == ranges
    assert several.max_detections == 1000, "of all views; a hundred of each"


def test_evaluation_and_prediction_use_all_views(tiny_config, tmp_path):
    aug = of_test_aug({"ENABLED": True, "MIN_SIZES": (160, 192), "MERGE": "vote"})
    run = {"OUTPUT_DIR": tmp_path, "MODEL.WEIGHTS": tmp_path / "model.pth", "TEST.VALIDATION_LOSS": False}
    cfg = tiny_config({**FIRES, **aug, **run})
    model = build_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    sizes = []
    model.backbone.register_forward_pre_hook(lambda module, args: sizes.append(min(args[0].shape[-2:])))

    results = Trainer.test(cfg, model)

    assert "AP" in results["bbox"] and (tmp_path / "inference/coco_instances_results.json").is_file()
    assert sizes == [160, 160, 192, 192] * len(read_dataset("tiny_val"))
    found = Predictor(cfg)(np.zeros((100, 120, 3), np.uint8))
    assert found.image_size == (100, 120) and len(found) > 0
