"""The mapper gives what Detectron2's DatasetMapper gives, to the last bit and with the same random numbers."""

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from atss.data.augmentation import ImageInput
from atss.data.mapper import BoxDatasetMapper
from atss.data.pixels import PillowPixels
from tests.helpers import paper_config

# Width and height, odd ones and narrow ones among them.
SIZES = [(64, 48), (61, 97), (133, 100), (33, 200), (7, 5)]


def photograph(width, height, seed=0):
    """A smooth image, in mode RGB."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 5 + 2, width // 5 + 2, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def annotations_of(width, height, seed):
    """Objects in COCO's form: boxes of floats, some at the border, one a crowd."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 0.7, (6, 2)) * (width, height)
    sizes = np.minimum(random.uniform(0.1, 1, (6, 2)) * (width, height), (width, height) - corners)
    boxes = np.concatenate([corners, sizes], axis=1).round(2).tolist()
    return [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": i, "iscrowd": int(i == 3),
             "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0], box[1] + box[3]]]}
            for i, box in enumerate(boxes)]  # fmt: skip


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Dicts of JPEG files of SIZES, and of one that is grey, one that is turned and one that is a palette."""
    folder, turned = tmp_path_factory.mktemp("images"), Image.Exif()
    turned[0x0112] = 6
    files = [(photograph(*size), f"{i}.jpg", {}) for i, size in enumerate(SIZES)]
    files += [
        (photograph(60, 41).convert("L"), "grey.jpg", {}),
        (photograph(41, 60), "turned.jpg", {"exif": turned}),
        (photograph(60, 41).convert("P"), "palette.png", {}),
    ]
    made = []
    for number, (image, name, options) in enumerate(files):
        image.save(folder / name, **options)
        width, height = image.size[::-1] if options else image.size
        objects = annotations_of(width, height, number)
        made.append({"file_name": str(folder / name), "width": width, "height": height, "annotations": objects})
    return made


def same(ours, theirs, records, rounds=3):
    """Whether two mappers give the same for all dicts, and draw the same random numbers."""
    for seed, record in enumerate(records * rounds):
        before = copy.deepcopy(record)
        np.random.seed(seed)
        found = ours(record)
        drawn = np.random.rand()
        assert record == before, "the dict is not changed"
        np.random.seed(seed)
        expected = theirs(record)

        assert found.keys() == expected.keys()
        assert found["image"].dtype == expected["image"].dtype and found["image"].is_contiguous()
        assert torch.equal(found["image"], expected["image"])
        assert found["instances"].image_size == expected["instances"].image_size
        assert torch.equal(found["instances"].gt_boxes.tensor, expected["instances"].gt_boxes.tensor)
        assert found["instances"].gt_boxes.tensor.dtype == torch.float32
        assert torch.equal(found["instances"].gt_classes, expected["instances"].gt_classes)
        assert drawn == np.random.rand()
    return True


@pytest.mark.parametrize(
    "settings",
    [
        ["INPUT.MIN_SIZE_TRAIN", (96,)],
        ["INPUT.MIN_SIZE_TRAIN", (20,)],
        ["INPUT.MIN_SIZE_TRAIN", (40, 90, 133), "INPUT.MAX_SIZE_TRAIN", 150],
        ["INPUT.MIN_SIZE_TRAIN", (30, 120), "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"],
        ["INPUT.MIN_SIZE_TRAIN", (0,)],
        ["INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.RANDOM_FLIP", "none"],
        ["INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.RANDOM_FLIP", "vertical"],
        ["INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.FORMAT", "RGB"],
        ["INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.CROP.ENABLED", True],
    ],
    ids=lambda settings: " ".join(map(str, settings)),
)
def test_every_augmentation_of_the_config(records, settings):
    cfg = paper_config()
    cfg.merge_from_list(settings)

    assert same(BoxDatasetMapper(cfg, True), DatasetMapper(cfg, True), records)


def test_the_papers_size(records):
    cfg = paper_config()

    assert same(BoxDatasetMapper(cfg, True), DatasetMapper(cfg, True), records[:3], rounds=2)


class DarkFlip(T.RandomFlip):
    """Flips dark images: looks at pixels, though Detectron2's class does not."""

    def get_transform(self, image):
        return T.HFlipTransform(image.shape[1]) if image.mean() < 128 else T.NoOpTransform()


AUGMENTATIONS = {
    "flip, then resize": [T.RandomFlip(), T.Resize((50, 70))],
    "two flips and two sizes": [T.RandomFlip(), T.Resize((50, 70)), T.RandomFlip(), T.Resize((90, 41))],
    "colours first": [T.RandomBrightness(0.5, 1.5), T.ResizeShortestEdge([40, 80], sample_style="choice")],
    "colours last": [T.ResizeShortestEdge([40, 80], sample_style="choice"), T.RandomFlip(), T.RandomContrast(0.5, 2)],
    "another interpolation": [T.Resize((50, 70), interp=Image.Resampling.BICUBIC), T.RandomFlip()],
    "rotation": [T.ResizeShortestEdge(60, 100), T.RandomRotation([-20, 20])],
    "transforms": [T.NoOpTransform(), T.RandomFlip(), T.BlendTransform(np.float32(9), 0.5, 0.5)],
    "by chance": [T.RandomApply(T.Resize((30, 40)), prob=0.5), T.RandomFlip()],
    "of a user": [DarkFlip(), T.ResizeShortestEdge(60, 100)],
    "none": [],
}  # fmt: skip


@pytest.mark.parametrize("augmentations", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_augmentations_of_users(records, augmentations):
    """They see arrays, also behind some that need none."""
    ours = BoxDatasetMapper(True, augmentations=augmentations, image_format="BGR")

    assert same(ours, DatasetMapper(True, augmentations=augmentations, image_format="BGR"), records)


def test_augmentations_can_be_used_elsewhere(records):
    augmentations = [T.ResizeShortestEdge(60, 100), T.RandomFlip()]
    BoxDatasetMapper(True, augmentations=augmentations, image_format="BGR")(records[0])

    seen = T.AugInput(np.zeros((30, 40, 3), np.uint8))
    T.AugmentationList(augmentations)(seen)

    assert seen.image.shape == (60, 80, 3)


def test_an_augmentation_can_replace_the_image():
    class Invert(T.Augmentation):
        def __call__(self, seen):
            seen.image = 255 - seen.image
            return T.NoOpTransform()

    image = photograph(40, 30)
    seen = ImageInput(PillowPixels(image, "RGB"))
    T.AugmentationList([Invert(), T.HFlipTransform(40)])(seen)

    assert np.array_equal(seen.image, 255 - np.asarray(image)[:, ::-1])
    assert torch.equal(seen.tensor(), torch.from_numpy(seen.image.transpose(2, 0, 1).copy()))


def with_boxes(record, change):
    annotations = [dict(annotation) for annotation in record["annotations"]]
    for number, annotation in enumerate(annotations):
        change(number, annotation)
    return {**record, "annotations": annotations}


def corners(number, annotation):
    annotation["bbox"] = BoxMode.convert(annotation["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    annotation["bbox_mode"] = BoxMode.XYXY_ABS


def integers(number, annotation):
    if number % 2:
        annotation["bbox"] = [int(x) + 1 for x in annotation["bbox"]]


def mixed(number, annotation):
    annotation["bbox"] = [int(x) + 1 if i == number % 4 else x for i, x in enumerate(annotation["bbox"])]


@pytest.mark.parametrize("change", [corners, integers, mixed])
def test_boxes_of_other_forms(records, change):
    cfg = paper_config()
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    changed = [with_boxes(record, change) for record in records]

    assert same(BoxDatasetMapper(cfg, True), DatasetMapper(cfg, True), changed)


def test_images_without_objects_and_records_without_annotations(records):
    cfg = paper_config()
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    assert same(BoxDatasetMapper(cfg, True), DatasetMapper(cfg, True), [{**records[0], "annotations": []}])

    without = {key: value for key, value in records[0].items() if key != "annotations"}
    assert "instances" not in BoxDatasetMapper(cfg, True)(without)
    assert not {"instances", "annotations"} & BoxDatasetMapper(cfg, False)(records[0]).keys()


def seeded(mapper, record):
    np.random.seed(0)
    return mapper(record)


def test_masks(records):
    cfg = paper_config()
    cfg.MODEL.MASK_ON, cfg.INPUT.MIN_SIZE_TRAIN = True, (96,)
    ours, theirs = BoxDatasetMapper(cfg, True), DatasetMapper(cfg, True)

    assert same(ours, theirs, records[:3])
    found, expected = (seeded(mapper, records[0])["instances"].gt_masks for mapper in (ours, theirs))
    for polygons, others in zip(found.polygons, expected.polygons, strict=True):
        assert np.array_equal(polygons, others)
