"""Detection in tiles: one tile equals the plain model, objects at borders are found once, evaluation uses tiles."""

import weakref
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from atss.data import EvalResize, read_dataset, test_loader
from atss.engine import Trainer
from atss.evaluation import TiledTest, for_testing, tiles
from atss.evaluation.augmentation import nms
from atss.modeling.inference import Detections, resize_boxes

FIRES = {"MODEL.ATSS.SCORE_THRESH_TEST": 0.005}
test_loader.__test__ = False  # a loader of test images, not a test


def of_tile(settings):
    return {f"TEST.TILE.{key}": value for key, value in settings.items()}


@pytest.mark.parametrize(("size", "extent"), [(192, 0), (1000, 1)])
def test_a_tile_as_large_as_the_image_equals_the_plain_model(tiny_config, size, extent):
    model_settings = {**FIRES, "MODEL.ATSS.PIXEL_EXTENT": extent}
    plain, cfg = tiny_config(model_settings), tiny_config({**model_settings, **of_tile({"SIZE": size})})
    model = build_model(plain).eval()
    tiled = for_testing(cfg, model)

    number = 0
    with torch.no_grad():
        for x, y in islice(zip(test_loader(plain, "tiny_val"), test_loader(cfg, "tiny_val"), strict=True), 3):
            a, b = (run(batch)[0]["instances"] for run, batch in ((model, x), (tiled, y)))
            assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
            assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)
            assert a.image_size == b.image_size
            number += len(a)
    assert number > 100


class Finder(nn.Module):
    """Detects what it sees of each bright rectangle, which has its number as pixel value; records its inputs."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.inputs = []

    def forward(self, batched_inputs):
        self.batches.append([tuple(x["image"].shape[1:]) for x in batched_inputs])
        self.inputs += [weakref.ref(x["image"]) for x in batched_inputs]
        assert sum(reference() is not None for reference in self.inputs) == len(batched_inputs), "no others are held"
        return [{"instances": self.find(x)} for x in batched_inputs]

    def find(self, x):
        image, size = x["image"][0], (x["height"], x["width"])
        boxes = []
        for value in image[image > 0].unique():
            rows, columns = (image == value).nonzero(as_tuple=True)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        found = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        scores, classes = torch.linspace(0.9, 0.8, len(found)), torch.zeros(len(found), dtype=torch.int64)
        return self.to_instances(Detections(found, scores, classes), tuple(image.shape), size)

    def to_instances(self, detections, image_size, size):
        boxes = Boxes(resize_boxes(detections.boxes, image_size, size))
        return Instances(size, pred_boxes=boxes, scores=detections.scores, pred_classes=detections.classes)


def detect(*boxes, height=100, width=250, size=100, overlap=0.2, whole=False, resize=None, output=None, batch_size=1):
    """Boxes that are found in an image with bright boxes, sorted, and the `Finder`."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        image[:, y1:y2, x1:x2] = number
    finder, (height, width) = Finder(), output or (height, width)
    tiled = TiledTest(finder, resize, size, overlap, whole, partial(nms, threshold=0.6), batch_size)
    (found,) = tiled([{"image": image, "height": height, "width": width}])
    assert found["instances"].image_size == (height, width)
    return sorted(found["instances"].pred_boxes.tensor.tolist()), finder


def test_boxes_have_their_place_in_the_image():
    """Tiles from 0 to 100, 80 to 180 and 150 to 250."""
    boxes = [[10, 20, 30, 40], [110, 0, 140, 100], [200, 60, 250, 100]]

    found, finder = detect(*boxes)

    assert found == boxes
    assert finder.batches == [[(100, 100)]] * 3
    assert detect(*boxes, output=(200, 1000))[0] == [[4 * x1, 2 * y1, 4 * x2, 2 * y2] for x1, y1, x2, y2 in boxes]


@pytest.mark.parametrize("begin", range(80, 102))
def test_an_object_that_fits_the_overlap_is_found_once_wherever_it_is(begin):
    """Whole in one tile, cut in the next one."""
    box, turned = [begin, 30, begin + 15, 45], [30, begin, 45, begin + 15]

    assert detect(box)[0] == [box]
    assert detect(turned, height=250, width=100)[0] == [turned]


def test_parts_of_an_object_that_no_tile_shows_remain_unless_the_whole_image_shows_it():
    box = [40, 30, 140, 50]

    parts, _ = detect(box)
    found, finder = detect(box, whole=True)

    assert parts == [[40, 30, 100, 50], [80, 30, 140, 50]]
    assert found == [box]
    assert finder.batches == [[(100, 100)]] * 3 + [[(100, 250)]]


def test_objects_at_the_border_of_the_image_are_not_cut_there():
    boxes = [[0, 0, 100, 10], [0, 80, 5, 100], [245, 0, 250, 100]]

    assert detect(*boxes)[0] == boxes


@pytest.mark.parametrize(
    ("other", "label", "score", "is_part"),
    [
        ([80, 0, 110, 20], 0, 0.8, True),
        ([80, 0, 110, 20], 1, 0.8, False),  # another class
        ([80, 0, 110, 20], 0, 0.3, True),
        ([80, 0, 110, 20], 0, 0.2, False),  # less than a quarter of 0.9
        ([89, 0, 130, 20], 0, 0.8, True),
        ([91, 0, 130, 20], 0, 0.8, False),  # covers 45 percent
        ([50, 0, 100, 20], 0, 0.8, False),  # does not extend further on the right
        ([85, 0, 104, 20], 0, 0.8, False),  # smaller
    ],
)
def test_what_a_box_that_ends_at_the_right_border_of_a_tile_is_part_of(other, label, score, is_part):
    boxes = torch.tensor([[80.0, 0, 100, 20], other])
    cut = torch.zeros(2, 4, dtype=torch.bool)
    cut[0, 2] = True

    found = tiles.without_parts(Detections(boxes, torch.tensor([0.9, score]), torch.tensor([0, label])), cut)

    assert torch.equal(found.boxes, boxes[1:] if is_part else boxes)


def test_of_two_parts_the_larger_one_is_kept():
    """Each ends where its tile does, and covers more than half of the other."""
    assert detect([65, 30, 110, 50])[0] == [[65, 30, 100, 50]]
    assert detect([75, 30, 120, 50])[0] == [[80, 30, 120, 50]]


def test_many_boxes_are_compared_in_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corner, size = (100 * torch.rand(300, 2, generator=generator) for _ in range(2))
    found = Detections(torch.cat([corner, corner + size], 1), torch.rand(300), torch.randint(0, 2, (300,)))
    cut = torch.rand(300, 4, generator=generator) > 0.9
    at_once = tiles.without_parts(found, cut)

    monkeypatch.setattr(tiles, "MAX_PAIRS", 500)

    assert all(torch.equal(a, b) for a, b in zip(tiles.without_parts(found, cut), at_once, strict=True))
    assert 100 < len(at_once.boxes) < 290


def test_tiles_go_through_the_model_in_batches():
    _, finder = detect([10, 20, 30, 40], width=420, batch_size=2, whole=True)

    assert finder.batches == [[(100, 100)] * 2] * 2 + [[(100, 100)]] + [[(100, 420)]]


def test_tiles_and_the_image_are_resized_as_for_testing():
    found, finder = detect([110, 20, 130, 40], resize=EvalResize(200, 300), whole=True)

    assert finder.batches == [[(200, 200)]] * 3 + [[(120, 300)]]
    assert np.abs(np.array(found) - [[110, 20, 130, 40]]).max() <= 1


def test_images_smaller_or_narrower_than_a_tile():
    assert detect([0, 0, 10, 1], height=1, width=250)[0] == [[0, 0, 10, 1]]
    assert detect([0, 0, 1, 1], height=1, width=1)[0] == [[0, 0, 1, 1]]


@pytest.mark.slow
def test_evaluation_and_multi_scale_testing_use_tiles(tiny_config, tmp_path):
    """With two tiles of 160 pixels, the whole image, and each of them at another size."""
    aug = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (176,), "TEST.AUG.FLIP": False}
    run = {"OUTPUT_DIR": tmp_path, "MODEL.WEIGHTS": tmp_path / "model.pth", "TEST.VALIDATION_LOSS": False}
    few = {**FIRES, "MODEL.ATSS.TOPK_CANDIDATES_TEST": 20}
    settings = {**few, **aug, **run, **of_tile({"SIZE": 160})}
    cfg = tiny_config(settings)
    model = build_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    sizes = []
    model.backbone.register_forward_pre_hook(lambda module, args: sizes.append(min(args[0].shape[-2:])))

    results = Trainer.test(cfg, model)

    records = read_dataset("tiny_val")
    tiled = sum(max(record["width"], record["height"]) > 160 for record in records)
    assert 0 < tiled < len(records)
    assert sizes == [192] * (len(records) + 2 * tiled)
    assert "AP" in results["bbox"] and (tmp_path / "inference/coco_instances_results.json").is_file()
