"""COCO-format files: what they must contain, and how errors are named."""

import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from atss.data import register_coco_format
from atss.data.catalog import load
from atss.data.coco import coco_source
from atss.errors import InputError


def test_a_registered_dataset(coco_file):
    path, images = coco_file()
    register_coco_format("animals", "gone.json", "gone")
    register_coco_format("animals", path, images)  # replaces the first one

    dicts = DatasetCatalog.get("animals")

    assert [os.path.basename(d["file_name"]) for d in dicts] == ["0.png", "1.png", "2.png"]
    assert [d["annotations"][0]["category_id"] for d in dicts] == [0, 1, 0], "ids 3 and 7 become 0 and 1"
    meta = MetadataCatalog.get("animals")
    assert meta.thing_classes == ["cat", "dog"]
    assert (meta.json_file, meta.image_root, meta.evaluator_type) == (path, images, "coco")


def test_area_iscrowd_and_objects_are_optional(coco_file):
    def strip(content):
        needed = ("id", "image_id", "category_id", "bbox")
        content["annotations"] = [{k: a[k] for k in needed} for a in content["annotations"][:1]]

    dicts = load("stripped", coco_source(*coco_file(strip)))

    assert [len(d["annotations"]) for d in dicts] == [1, 0, 0]


def changed(kind, index, key, value):
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
        (changed("images", 1, "width", "64"), "images[1]: 'width'"),
        (changed("images", 1, "height", 0), "images[1]: 'height'"),
        (changed("images", 1, "id", 0), "images: two entries"),
        (changed("images", 1, "id", "0"), "images: two entries have the same 'id' 0"),
        (changed("images", 1, "id", None), "images[1]: 'id' must be an integer or a text, got None"),
        (changed("images", 1, "file_name", None), "images[1]: 'file_name'"),
        (changed("images", 1, "file_name", "gone.png"), "gone.png"),
        (changed("categories", 0, "name", 5), "categories[0]: 'name'"),
        (changed("annotations", 2, "image_id", 99), "annotations[2] (id 2): no image has the id 99"),
        (changed("annotations", 2, "category_id", 5), "no category has the id 5; there are 3, 7"),
        (changed("annotations", 2, "bbox", [1, 2, 3]), "'bbox' must be [x, y, width, height]"),
        (changed("annotations", 2, "bbox", [1, 2, 3, "4"]), "'bbox' must be"),
        (changed("annotations", 2, "bbox", [1, 2, 3, float("nan")]), "'bbox' must be"),
        (lambda c: c["annotations"][2].pop("bbox"), "'bbox' must be"),
    ],
)
def test_malformed_entries_are_named(coco_file, change, named):
    path, images = coco_file(change)

    with pytest.raises(InputError) as caught:
        load("malformed", coco_source(path, images))

    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert path in str(caught.value) or images in str(caught.value)


def test_missing_and_malformed_files_are_named_and_missing_images_are_counted(coco_file):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        load("missing", coco_source("nowhere.json", "nowhere"))
    with pytest.raises(InputError, match=r"annotations\.json: not a json file"):
        load("malformed", coco_source(*coco_file(text="not json")))
    with pytest.raises(InputError, match=r"elsewhere/0\.png.*3 of 3"):
        load("missing", coco_source(coco_file()[0], "elsewhere"))
