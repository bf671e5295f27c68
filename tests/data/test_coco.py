"""COCO-format files: what is good enough, and how each problem is named."""

import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from atss.data import register_coco_format
from atss.data.catalog import load
from atss.data.coco import coco_source
from atss.errors import InputError


def test_registered_by_name_file_and_folder(coco_file):
    path, images = coco_file()
    register_coco_format("animals", path, images)

    dicts = DatasetCatalog.get("animals")

    assert [os.path.basename(d["file_name"]) for d in dicts] == ["0.png", "1.png", "2.png"]
    assert [d["annotations"][0]["category_id"] for d in dicts] == [0, 1, 0], "ids 3 and 7 become 0 and 1"
    meta = MetadataCatalog.get("animals")
    assert meta.thing_classes == ["cat", "dog"]
    assert (meta.json_file, meta.image_root, meta.evaluator_type) == (path, images, "coco")


def test_registering_again_takes_the_new_files(coco_file):
    register_coco_format("animals", "gone.json", "gone")
    register_coco_format("animals", *coco_file())

    assert len(DatasetCatalog.get("animals")) == 3


def test_only_what_detection_needs_is_asked_for(coco_file):
    """No area, no iscrowd, no segmentation, no info; images without objects."""

    def strip(content):
        content["annotations"] = [
            {k: a[k] for k in ("id", "image_id", "category_id", "bbox")} for a in content["annotations"][:1]
        ]

    dicts = load("stripped", coco_source(*coco_file(strip)))

    assert [len(d["annotations"]) for d in dicts] == [1, 0, 0]


def set_key(kind, index, key, value):
    return lambda content: content[kind][index].__setitem__(key, value)


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda c: c.pop("images"), "no list 'images'"),
        (lambda c: c.pop("categories"), "no list 'categories'"),
        (lambda c: c.update(annotations={}), "no list 'annotations'"),
        (lambda c: c.update(images=[]), "'images' is empty"),
        (lambda c: c.update(categories=[]), "'categories' is empty"),
        (lambda c: c["images"].append("3.png"), "images[3]"),
        (set_key("images", 1, "width", "64"), "images[1]: 'width'"),
        (set_key("images", 1, "height", 0), "images[1]: 'height'"),
        (set_key("images", 1, "id", 0), "images: two entries"),
        (set_key("images", 1, "file_name", None), "images[1]: 'file_name'"),
        (set_key("images", 1, "file_name", "gone.png"), "gone.png"),
        (set_key("categories", 0, "name", 5), "categories[0]: 'name'"),
        (set_key("annotations", 2, "id", 0), "annotations: two entries"),
        (set_key("annotations", 2, "id", None), "annotations[2]: 'id'"),
        (set_key("annotations", 2, "image_id", 99), "annotations[2] (id 2): no image has the id 99"),
        (set_key("annotations", 2, "category_id", 5), "no category has the id 5; there are 3, 7"),
        (set_key("annotations", 2, "bbox", [1, 2, 3]), "'bbox' must be [x, y, width, height]"),
        (set_key("annotations", 2, "bbox", [1, 2, 3, "4"]), "'bbox' must be"),
        (set_key("annotations", 2, "bbox", [1, 2, 3, float("nan")]), "'bbox' must be"),
        (lambda c: c["annotations"][2].pop("bbox"), "'bbox' must be"),
    ],
)
def test_what_is_malformed_is_named(coco_file, change, named):
    path, images = coco_file(change)

    with pytest.raises(InputError) as caught:
        load("malformed", coco_source(path, images))

    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert path in str(caught.value) or images in str(caught.value)


@pytest.mark.parametrize("text", ["", '{"images": [', "[]", "not json", "[" * 100000])
def test_what_is_no_coco_file_is_named(coco_file, text):
    path, images = coco_file(text=text)

    with pytest.raises(InputError, match=path):
        load("malformed", coco_source(path, images))


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.json"):
        load("missing", coco_source("nowhere.json", "nowhere"))


def test_missing_images_are_counted(coco_file):
    path, _ = coco_file()

    with pytest.raises(InputError, match=r"elsewhere/0\.png.*3 of 3"):
        load("missing", coco_source(path, "elsewhere"))
