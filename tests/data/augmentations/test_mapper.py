"""Training images with INPUT.AUGMENTATIONS: boxes that follow, at every worker and after a resume the same ones."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from atss.config import load_config
from atss.data import train_loader, validation_loader
from atss.data.augmentations.cut_objects import MIN_VISIBLE, follow
from atss.data.augmentations.framing import ScaleJitter, scaled_window
from atss.data.augmentations.mapper import AugmentedMapper
from atss.data.augmentations.registry import AUGMENTATIONS
from atss.data.loaders import train_dicts
from atss.data.mapper import BoxDatasetMapper
from atss.data.train_loader import MappedImages, Place
from atss.errors import InputError
from tests.helpers import paper_config

BOX = [20.0, 10.0, 40.0, 30.0]  # x, y, width, height of the white object in a black image of 120 x 90 pixels
CROWD = [70.0, 50.0, 30.0, 20.0]  # of the grey one


def annotation(box, **others):
    return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, **others}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Dict of a black image with a white object and a grey crowd region."""
    image = np.zeros((90, 120, 3), np.uint8)
    for (x, y, width, height), value in ((BOX, 255), (CROWD, 128)):
        image[int(y) : int(y + height), int(x) : int(x + width)] = value
    path = str(tmp_path_factory.mktemp("image") / "image.png")
    Image.fromarray(image).save(path)
    return {
        "file_name": path,
        "width": 120,
        "height": 90,
        "annotations": [annotation(BOX), annotation(CROWD, iscrowd=1)],
    }


def mapper(augmentations, others=(), **settings):
    cfg = paper_config()
    settings = {"MIN_SIZE_TRAIN": (180,), "RANDOM_FLIP": "none", "AUGMENTATIONS": augmentations, **settings}
    cfg.INPUT.update(settings)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.ATSS.IGNORE_CROWD = [3.0, 3.0, 3.0], True
    made = AugmentedMapper(cfg, True)
    made.dicts = others
    return made


def mapped(make, record, number=15):
    """A record, mapped with different random numbers."""
    for seed in range(number):
        np.random.seed(seed)
        yield make(record)


def extents(image, low, high):
    """x1 y1 x2 y2 of the pixels of an image (3, H, W) with values from `low` to `high`; None if there are none."""
    values = image[0].numpy()
    rows, columns = np.nonzero((values >= low) & (values <= high))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None


GEOMETRY = [
    ["scale_jitter"],
    [["scale_jitter", {"scale": [0.3, 3]}]],
    [["scale_jitter", {"size": [100, 300]}]],
    [["rotate", {"degrees": 20, "p": 1}]],
    [["rotate", {"degrees": 10}], "scale_jitter"],
]


@pytest.mark.parametrize("backend, flip", [("pillow", "none"), ("torch", "both")])
@pytest.mark.parametrize("augmentations", GEOMETRY, ids=str)
def test_boxes_and_ignored_regions_follow_the_pixels(record, augmentations, backend, flip):
    make = mapper(augmentations, RESIZE_BACKEND_TRAIN=backend, RANDOM_FLIP=flip)
    seen = 0
    for found in mapped(make, record):
        objects, ignored = found["instances"].gt_boxes.tensor.tolist(), found["ignore_boxes"].tolist()
        white, height, width = extents(found["image"], 200, 255), *found["image"].shape[1:]
        if not objects or white is None:
            continue
        seen += 1
        scale = max(1, width / 120, height / 90)  # pixels over which the edge of an enlarged object is smeared
        assert white == pytest.approx(objects[0], abs=1.5 * scale)
        grey = extents(found["image"], 100, 150)
        if ignored and grey and min(white[2] - white[0], white[3] - white[1]) > 20:
            assert any(grey[2] > x1 and grey[3] > y1 for x1, y1, *_ in ignored)
        assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in objects + ignored)
    assert seen > 7


def test_flips_in_both_directions_are_independent(record):
    found = [
        tuple(found["instances"].gt_boxes.tensor[0, :2].tolist())
        for found in mapped(mapper([], RANDOM_FLIP="both"), record, 100)
    ]

    counts = [found.count(corner) for corner in ((40, 20), (240 - 120, 20), (40, 180 - 80), (240 - 120, 180 - 80))]
    assert sum(counts) == 100 and min(counts) > 12


def test_an_object_that_is_cut_nearly_whole_becomes_an_ignored_region_and_one_outside_is_dropped():
    crop = T.CropTransform(50, 0, 100, 100)
    boxes = {"inside": [60, 10, 20, 20], "half": [40, 10, 20, 20], "least": [32, 10, 20, 20], "cut": [31, 10, 20, 20]}
    boxes |= {"outside": [20, 10, 30, 20], "corners": [140, 90, 160, 110]}
    annotations = [annotation(list(map(float, box)), name=name) for name, box in boxes.items()]
    annotations[-1]["bbox_mode"] = BoxMode.XYXY_ABS
    annotations.append(annotation([140.0, 0, 200, 10], iscrowd=1))

    found = follow(annotations, crop, (100, 100))

    assert [(a["bbox"], a["iscrowd"]) for a in found] == [
        ([10, 10, 20, 20], 0), ([0, 10, 10, 20], 0), ([0, 10, 2, 20], 0), ([0, 10, 1, 20], 1), ([90, 90, 10, 10], 0),
        ([90, 0, 10, 10], 1),
    ]  # fmt: skip
    assert MIN_VISIBLE == 0.1 and {a["bbox_mode"] for a in found} == {BoxMode.XYWH_ABS}


@pytest.mark.parametrize("ignore_crowd", [True, False])
def test_what_is_left_of_a_cut_object_is_no_object(record, ignore_crowd):
    make = mapper([["scale_jitter", {"scale": [4, 4]}]])
    make.ignore_crowd = ignore_crowd
    ignored = []
    for found in mapped(make, {**record, "annotations": [annotation(BOX)]}, 60):
        width, height = BOX[2:]
        for x1, y1, x2, y2 in found["instances"].gt_boxes.tensor.tolist():
            assert (x2 - x1) * (y2 - y1) > 0.99 * MIN_VISIBLE * width * height * 8**2
        ignored.append(len(found.get("ignore_boxes", ())))
    assert any(ignored) == ignore_crowd


def test_scale_jitter_is_large_scale_jitter():
    """Factors from 0.1 to 2 of what fits the window, which is never exceeded, and all parts of the image are seen."""
    np.random.seed(0)
    draws = [ScaleJitter().draw((60, 80, 3), (300, 400)) for _ in range(500)]

    scales = np.array([resize.new_h / resize.h / 5 for _, resize in draws])
    assert 0.09 < scales.min() < 0.15 and 1.95 < scales.max() < 2.1 and 0.95 < np.median(scales) < 1.15
    assert all(resize.new_h <= 300 and resize.new_w <= 400 for _, resize in draws)
    large = [(crop, resize) for crop, resize in draws if resize.new_h == 300]
    assert {crop.y0 for crop, _ in large} >= set(range(25)) and all(crop.y0 + crop.h <= 60 for crop, _ in large)
    for crop, resize in draws:
        assert (resize.h, resize.w) == (crop.h, crop.w)
        assert resize.new_h / resize.h == pytest.approx(resize.new_w / resize.w, rel=0.1, abs=0.2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (3, 2)])
@pytest.mark.parametrize("window", [(1, 1), (300, 400), (0, 7)])
@pytest.mark.parametrize("factor", [0.05, 5])
def test_no_window_is_empty(shape, window, factor):
    crop, resize = scaled_window(shape, window, window, factor)

    assert min(crop.h, crop.w, resize.new_h, resize.new_w) >= 1


def test_effects_act_on_the_smaller_of_an_images_two_sizes(record):
    """JPEG's blocks of 8 pixels become larger when the image is enlarged afterwards."""
    seen = []

    class Seen(T.Augmentation):
        def get_transform(self, image):
            seen.append(image.shape[:2])
            return T.NoOpTransform()

    for side in (180, 45):
        make = mapper(["blur"], MIN_SIZE_TRAIN=(side,))
        make.augmentations.augs[0].effects = [Seen()]
        found = make(record)
        assert found["image"].shape[1:] == (side, side * 4 // 3)
        assert found["instances"].gt_boxes.tensor.tolist() == [[x * side / 90 for x in (20, 10, 60, 40)]]
    assert seen == [(90, 120), (45, 60)]


def of_color(folder, name, color, size):
    Image.new("RGB", size, color).save(folder / name)
    width, height = map(float, size)
    objects = [annotation([0.0, 0.0, width, height])]
    return {"file_name": str(folder / name), "width": size[0], "height": size[1], "annotations": objects}


def test_a_mosaic_has_four_images_and_the_objects_of_each(tmp_path):
    """Each image is one color, and so is its only object."""
    first = of_color(tmp_path, "first.png", (10, 10, 10), (120, 90))
    others = [of_color(tmp_path, f"{i}.jpg", (i, i, i), (9 * i, 2000 - 9 * i)) for i in range(60, 200, 20)]
    make = mapper([["mosaic", {"p": 1}]], others)
    shown = set()
    for found in mapped(make, first, 30):
        image = found["image"].numpy()
        assert image.shape == (3, 180, 240), "the size of the first image alone"
        boxes = found["instances"].gt_boxes.tensor.int().tolist()
        assert len(boxes) == 4
        covered = np.zeros((180, 240), int)
        for x1, y1, x2, y2 in boxes:
            shown.add(int(image[0, y1, x1]))
            assert (image[:, y1:y2, x1:x2] == image[0, y1, x1]).all()
            covered[y1:y2, x1:x2] += 1
        assert covered.max() == 1 and (image[0][covered == 0] == 3).all(), "the mean where there is no image"
        assert image[0, boxes[0][1], boxes[0][0]] == 10
    assert shown == {10, *range(60, 200, 20)}, "any image can be among them"


def test_a_mosaic_decodes_jpeg_files_no_larger_than_needed(tmp_path):
    record = of_color(tmp_path, "large.jpg", (9, 9, 9), (800, 600))
    make = mapper([["mosaic", {"p": 1}]])

    assert make.size_of(record) == (600, 800)
    shapes = [make.read_reduced(record, scale).shape for scale in (1.2, 1, 0.51, 0.5, 0.26, 0.25, 0.01)]
    assert shapes == [(600, 800, 3)] * 3 + [(300, 400, 3)] * 2 + [(150, 200, 3)] + [(75, 100, 3)]
    with pytest.raises(InputError, match=r"large\.jpg: .*correct width and height in the annotation file"):
        make({**record, "width": 600, "height": 800})


def test_the_file_that_a_mosaic_cannot_read_is_named_and_another_place_taken(tmp_path):
    dicts = [of_color(tmp_path, f"{i}.png", (i, i, i), (40, 30)) for i in range(6)]
    (tmp_path / "2.png").write_text("no image")
    make = mapper([["mosaic", {"p": 1}]], dicts)
    images = MappedImages(dicts, make, [False] * 6, seed=1, skip_unreadable=True)

    found = [images[Place(position, position % 2)] for position in range(12)]

    names = {name.rpartition("/")[2] for record in found for name, _ in record["unusable"]}
    assert names == {"2.png"}
    with pytest.raises(InputError, match=r"2\.png: the image cannot be read"):
        list(mapped(make, dicts[0]))


@pytest.mark.parametrize("kind", ["grey", "16 bits", "a pixel", "a row", "a column"])
@pytest.mark.parametrize("format", ["BGR", "RGB"])
def test_all_augmentations_take_unusual_images_and_images_without_objects(tmp_path, kind, format):
    sizes = {"a pixel": (1, 1), "a row": (50, 1), "a column": (1, 40)}
    width, height = sizes.get(kind, (40, 30))
    values = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    image = Image.fromarray(values.astype(np.uint16) * 257) if kind == "16 bits" else Image.fromarray(values)
    path = str(tmp_path / "image.png")
    image.save(path)
    record = {"file_name": path, "width": width, "height": height}
    objects = [[], [annotation([0.0, 0.0, float(width), float(height)])]]
    dicts = [{**record, "annotations": annotations} for annotations in objects]
    every = [[name, {} if name == "scale_jitter" else {"p": 1}] for name in AUGMENTATIONS]
    for augmentations in (every, [entry for entry in every if entry[0] != "mosaic"]):
        make = mapper(augmentations, dicts, MIN_SIZE_TRAIN=(24,), MAX_SIZE_TRAIN=1500, FORMAT=format)
        for record, number in itertools.product(dicts, range(5)):
            np.random.seed(number)
            found = make(record)
            assert found["image"].dtype == torch.uint8 and found["image"].is_contiguous() and found["image"].numel()
            assert found["instances"].gt_boxes.tensor.isfinite().all()


def same(batches, others):
    return all(
        torch.equal(x["image"], y["image"])
        and torch.equal(x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor)
        and torch.equal(x["ignore_boxes"], y["ignore_boxes"])
        for batch, other in zip(batches, others, strict=True)
        for x, y in zip(batch, other, strict=True)
    )


@pytest.fixture
def augmented(tiny_config):
    """Function: settings -> config with all augmentations."""

    def make(**settings):
        settings = {"INPUT.AUGMENTATIONS": list(AUGMENTATIONS), "MODEL.ATSS.IGNORE_CROWD": True, **settings}
        return tiny_config(settings)

    return make


@pytest.mark.slow
def test_images_do_not_depend_on_workers_nor_on_where_a_run_was_resumed(augmented):
    expected = list(itertools.islice(train_loader(augmented()), 8))

    for workers, start in ((2, 0), (0, 5), (3, 5)):
        loader = train_loader(augmented(**{"DATALOADER.NUM_WORKERS": workers}))
        loader.first = start
        assert same(expected[start:], list(itertools.islice(loader, 8 - start)))
    assert same([train_loader(augmented()).batch(6)], [expected[6]])
    assert not same(expected, list(itertools.islice(train_loader(augmented(SEED=2)), 8)))


def test_only_training_augments_and_without_the_key_the_mapper_is_the_plain_one(augmented, tiny_config):
    assert type(train_loader(augmented()).mapper) is AugmentedMapper
    assert type(train_loader(tiny_config()).mapper) is BoxDatasetMapper
    (name,) = augmented().DATASETS.TEST
    augmented_batch, plain = (next(iter(validation_loader(cfg, name))) for cfg in (augmented(), tiny_config()))
    assert all(torch.equal(x["image"], y["image"]) for x, y in zip(augmented_batch, plain, strict=True))


def test_augmentations_are_made_from_the_run_folders_config(augmented, tmp_path):
    """Written on the command line, dumped and read again."""
    cfg = augmented(**{"INPUT.AUGMENTATIONS": ["color_jitter", ["rotate", {"degrees": 3, "p": 0.5}]]})
    (tmp_path / "config.yaml").write_text(cfg.dump())

    again = load_config(str(tmp_path / "config.yaml"))

    assert (
        again.INPUT.AUGMENTATIONS == cfg.INPUT.AUGMENTATIONS == ["color_jitter", ["rotate", {"degrees": 3, "p": 0.5}]]
    )
    assert len(train_dicts(again)) and same([train_loader(again).batch(1)], [train_loader(cfg).batch(1)])
