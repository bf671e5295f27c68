"""A trained model from Python: images of any kind in, detections with class names out."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from atss.data.image_io import read_image
from atss.errors import InputError
from atss.predictor import ImageDetections, Predictor
from tests.helpers import pairs

NAMES = ["disc", "ring", "box", "frame", "triangle", "cross"]
# Random weights give many detections with low scores in any image.
FIRES = {"MODEL.ATSS.SCORE_THRESH_TEST": 0.005, "MODEL.ATSS.TOPK_CANDIDATES_TEST": 30}


@pytest.fixture
def saved(tiny_config, tmp_path):
    """Function: key-value pairs -> paths of the config.yaml and the checkpoint of a run."""

    def save(settings=None):
        cfg = tiny_config({**FIRES, **(settings or {})})
        torch.manual_seed(0)
        torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
        (tmp_path / "config.yaml").write_text(cfg.dump())
        return tmp_path / "config.yaml", tmp_path / "model.pth"

    return save


@pytest.fixture
def predictor(saved):
    return Predictor.load(*saved())


@pytest.fixture
def paths(shapes):
    return sorted(str(path) for path in Path(shapes["DATASETS.REGISTER"][1][2]).glob("*.jpg"))


def assert_same(found, expected, exactly=True):
    assert isinstance(found, ImageDetections) and len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=0 if exactly else 1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=0 if exactly else 0.01)
    assert np.array_equal(found.classes, expected.classes) and found.names == expected.names


def test_the_detections_of_an_image(predictor, paths):
    found = predictor.predict(paths[0], min_score=0.0)

    number = len(found)
    assert number > 10
    height, width = read_image(paths[0]).shape[:2]
    assert found.boxes.shape == (number, 4) and found.scores.shape == found.classes.shape == (number,)
    assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (np.float32, np.float32, np.int64)
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert (np.diff(found.scores) <= 0).all(), "best first"
    assert found.names == [NAMES[c] for c in found.classes]


def test_detections_are_the_models_output(predictor, paths):
    """In Detectron2's format, with the image resized as for evaluation."""
    image = read_image(paths[0])
    height, width = image.shape[:2]
    resized = predictor.resize.get_transform(image).apply_image(image)
    tensor = torch.as_tensor(resized.transpose(2, 0, 1).copy())
    with torch.no_grad():
        (given,) = predictor.model([{"image": tensor, "height": height, "width": width}])

    instances, found = predictor(image), predictor.predict(image, min_score=0.0)

    assert instances.image_size == (height, width)
    assert torch.equal(instances.pred_boxes.tensor, given["instances"].pred_boxes.tensor)
    assert torch.equal(instances.scores, given["instances"].scores)
    assert np.array_equal(found.boxes, instances.pred_boxes.tensor)
    assert np.array_equal(found.scores, instances.scores) and np.array_equal(found.classes, instances.pred_classes)


def test_an_image_may_be_a_path_an_array_or_a_pillow_image(predictor, paths):
    expected = predictor.predict(paths[0], min_score=0.0)
    for image in (Path(paths[0]), cv2.imread(paths[0]), Image.open(paths[0])):
        assert_same(predictor.predict(image, min_score=0.0), expected)

    grey = cv2.imread(paths[0], cv2.IMREAD_GRAYSCALE)
    expected = predictor.predict(np.stack([grey] * 3, axis=2), min_score=0.0)
    assert_same(predictor.predict(grey, min_score=0.0), expected)


@pytest.mark.parametrize("several", [list, tuple, iter])
def test_several_images_give_a_list(predictor, paths, several):
    images = [paths[0], cv2.imread(paths[1]), Image.open(paths[2])]

    found = predictor.predict(several(images), min_score=0.0)

    assert isinstance(found, list)
    for of_image, path in zip(found, paths[:3], strict=True):
        assert_same(of_image, predictor.predict(path, min_score=0.0))
    assert predictor.predict([]) == []


def test_detections_do_not_depend_on_the_other_images_of_a_list(predictor, paths):
    """Images of several sizes, in a batch and alone: padding would change group normalisation."""
    images = [read_image(path) for path in paths]
    images += [np.ascontiguousarray(images[0][:, :90]), np.tile(images[1], (1, 2, 1)), images[2][:41, :33]]
    assert len({image.shape for image in images}) > 4

    together = predictor.predict(images, min_score=0.0, batch_size=len(images))

    for found, image in zip(together, images, strict=True):
        assert_same(found, predictor.predict(image, min_score=0.0), exactly=False)


def test_batches(predictor, paths):
    """One image at a time on a CPU, at most `batch_size` otherwise, and no more images in memory than that."""
    sizes, taken = [], []
    predictor.model.backbone.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    square = read_image(paths[0])[:100, :100]

    def images():
        for number in range(7):
            taken.append((number, len(sizes)))
            yield square

    predictor.predict(images())
    assert sizes == [1] * 7 and taken == [(n, n) for n in range(7)]
    sizes.clear()
    predictor.predict([square] * 7, batch_size=3)
    assert sizes == [3, 3, 1]
    with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
        predictor.predict([square], batch_size=0)


def test_detections_have_a_minimum_score(predictor, paths):
    everything = predictor.predict(paths[0], min_score=0.0)
    least = everything.scores[9]

    found = predictor.predict(paths[0], min_score=float(least))

    number = int((everything.scores >= least).sum())
    assert 10 <= len(found) == number < len(everything)
    assert_same(found, ImageDetections(*(values[:number] for values in vars(everything).values())))
    nothing = predictor.predict(paths[0])
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4) and nothing.names == []


def test_a_model_for_rgb_gets_the_same_image(saved, paths):
    """Red and blue change places in the model's first layer and its means; nothing else does."""
    config, weights = saved()
    bgr = Predictor.load(config, weights)
    means, stds = (values.flatten().flip(0).tolist() for values in (bgr.model.pixel_mean, bgr.model.pixel_std))
    rgb = Predictor.load(config, weights, ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", means, "MODEL.PIXEL_STD", stds])
    first = rgb.model.backbone.bottom_up.stem.conv1.weight
    first.data = first.data.flip(1)

    found, expected = (p.predict(paths[0], min_score=0.0) for p in (rgb, bgr))

    assert_same(found, expected, exactly=False)


@pytest.mark.parametrize(
    ("image", "error", "got"),
    [
        (np.zeros((9, 9, 3), np.float32), TypeError, "float32"),
        (np.zeros((9, 9, 3), bool), TypeError, "bool"),
        (np.zeros((9, 9, 4), np.uint8), InputError, r"\(9, 9, 4\)"),
        (np.zeros((3, 9, 9), np.uint8), InputError, r"\(3, 9, 9\)"),
        (np.zeros((2, 9, 9, 3), np.uint8), InputError, r"\(2, 9, 9, 3\)"),
        (np.zeros(9, np.uint8), InputError, r"\(9,\)"),
        (np.zeros((0, 9, 3), np.uint8), InputError, r"\(0, 9, 3\)"),
        (np.zeros((9, 0), np.uint8), InputError, r"\(9, 0, 3\)"),
        (None, TypeError, "NoneType"),
        (7, TypeError, "int"),
        (torch.zeros(3, 9, 9), TypeError, "Tensor"),
    ],
)
def test_an_error_names_what_an_image_may_be(predictor, image, error, got):
    expected = r"expected a path, a \(H, W, 3\) uint8 array in BGR order.*, got .*"

    with pytest.raises(error, match=expected + got):
        predictor.predict(image)
    with pytest.raises(error, match=r"image 1 of the list: " + expected + got):
        predictor.predict([np.zeros((9, 9, 3), np.uint8), image])


def test_an_error_names_the_file_that_cannot_be_read(predictor, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")

    with pytest.raises(InputError, match=r"text\.jpg: the image cannot be read"):
        predictor.predict(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"none\.jpg: the image is missing"):
        predictor.predict([str(tmp_path / "none.jpg")])


@pytest.mark.parametrize("like", ["detectron2", "maskrcnn-benchmark", "mmdetection"])
@pytest.mark.parametrize("scales", [None, (1600, 160)])
def test_images_may_be_arbitrarily_narrow_or_small(saved, scales, like):
    """Three pixels high, one pixel after resizing; or a single pixel."""
    aug = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": scales, "TEST.AUG.FLIP": False} if scales else {}
    predictor = Predictor.load(*saved({**aug, "INPUT.RESIZE_LIKE": like}))

    for height, width in ((3, 20000), (20000, 3), (1, 1)):
        found = predictor.predict(np.zeros((height, width, 3), np.uint8), min_score=0.0)
        assert (found.boxes >= 0).all() and (found.boxes <= [width, height] * 2).all()


def test_multi_scale_testing(saved, paths):
    """Every image at every scale and mirrored, also in a list."""
    settings = {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (160, 192), "TEST.AUG.MERGE": "vote"}
    predictor = Predictor.load(*saved(settings))
    sides = []
    predictor.model.model.backbone.register_forward_pre_hook(lambda _, args: sides.append(min(args[0].shape[-2:])))

    found = predictor.predict(paths[:2], min_score=0.0, batch_size=2)

    assert sides == [160, 160, 192, 192] * 2
    assert_same(found[1], predictor.predict(paths[1], min_score=0.0))


def test_tiles(predictor, saved, paths):
    """Of 150 pixels, three for an image of 300, and the whole image; in batches of TEST.TILE.BATCH_SIZE."""
    image = np.hstack([read_image(path)[:150, :150] for path in paths[:2]])
    configured = Predictor.load(*saved({"TEST.TILE.SIZE": 150, "TEST.TILE.OVERLAP": 0.4, "TEST.TILE.BATCH_SIZE": 2}))
    batches = []
    configured.detector.backbone.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))

    found = predictor.predict(image, min_score=0.0, tile=150, overlap=0.4)

    assert len(found) > 10 and found.boxes[:, 0].max() > 150 and (found.boxes <= [300, 150, 300, 150]).all()
    assert_same(configured.predict([image], min_score=0.0)[0], found, exactly=False)
    assert batches == [2, 1, 1]
    assert len(configured.predict(image, min_score=0.0, tile=0)) > 0 and batches == [2, 1, 1, 1]


def test_a_tile_as_large_as_the_image_gives_the_same_boxes(predictor, paths):
    assert_same(predictor.predict(paths[0], 0.0, tile=192, overlap=0.9), predictor.predict(paths[0], 0.0))


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [
        ({"tile": 10}, "TEST.TILE.SIZE: expected 0, or at least 32 pixels, .*, got 10"),
        ({"tile": "64"}, "TEST.TILE.SIZE: .* got '64'"),
        ({"tile": 64, "overlap": 1}, "TEST.TILE.OVERLAP: expected 0 or more and less than 1, got 1"),
        ({"tile": 64, "overlap": float("nan")}, "TEST.TILE.OVERLAP: .* got nan"),
    ],
)
def test_tiles_that_make_no_sense_are_refused(predictor, paths, tiles, expected):
    with pytest.raises(InputError, match=expected):
        predictor.predict(paths[0], **tiles)


def test_the_largest_image_is_that_of_the_config(saved, paths):
    predictor = Predictor.load(*saved({"INPUT.MAX_PIXELS": 100}))

    with pytest.raises(InputError, match="more than the 100 pixels"):
        predictor.predict(paths[0])


def test_a_run_needs_no_datasets_to_be_loaded(saved, paths):
    config, weights = saved({"MODEL.WEIGHTS": "elsewhere.pth"})
    text = config.read_text()
    assert "tiny_train" in text
    config.write_text(text.replace("tiny_train", "moved_away").replace("tiny_val", "moved_away_too"))

    assert len(Predictor.load(str(config), str(weights)).predict(paths[0], min_score=0.0)) > 0
    assert len(Predictor.load(config, opts=["MODEL.WEIGHTS", weights]).predict(paths[0], min_score=0.0)) > 0
    with pytest.raises(InputError, match=r"elsewhere\.pth: no such checkpoint"):
        Predictor.load(config)
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS: name the checkpoint"):
        Predictor.load(config, "")


def test_the_folder_of_a_run_gives_its_last_checkpoint(saved, paths):
    config, weights = saved()
    expected = Predictor.load(config, weights).predict(paths[0], min_score=0.0)
    folder = weights.rename(weights.parent / "model_0000009.pth").parent
    (folder / "last_checkpoint").write_text("model_0000009.pth")

    assert_same(Predictor.load(folder).predict(paths[0], min_score=0.0), expected)

    with pytest.raises(InputError, match=r"there\.pth"):
        Predictor.load(folder, folder / "there.pth")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty/config\.yaml: no such config file"):
        Predictor.load(folder / "empty")


def test_classes_without_names_are_numbered(saved, paths):
    none = pairs({"MODEL.ATSS.CLASS_NAMES": [], "DATASETS.TRAIN": "()", "DATASETS.TEST": "()"})

    found = Predictor.load(*saved(), opts=none).predict(paths[0], min_score=0.0)

    assert found.names == [f"class {c}" for c in found.classes]
