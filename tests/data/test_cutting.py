"""Cutting a dataset into tiles: boxes to the pixel, the share that must be visible, crowd regions, pixels, names."""

import json

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from atss.data.catalog import load
from atss.data.coco import coco_source
from atss.data.cutting import Cutter, write_coco
from atss.errors import InputError


@pytest.fixture
def record(tmp_path):
    """Function: boxes [x, y, width, height], whether each is a crowd -> dict of an image of 100 x 60 pixels."""

    def make(*boxes, crowd=(), name="image.png", size=(100, 60)):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        annotations = [
            {"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": i % 2, "iscrowd": int(i in crowd)}
            for i, box in enumerate(boxes)
        ]
        width, height = size
        return {"file_name": str(tmp_path / name), "width": width, "height": height, "annotations": annotations}

    return make


def cut(record, folder, size=60, overlap=0.5, **options):
    """The entries of the tiles of an image, and their annotations as (category id, box, crowd)."""
    folder.mkdir(exist_ok=True)
    found = list(Cutter(size, overlap, **options).cut([record], [3, 7], folder))
    return [(entry, [(a["category_id"], a["bbox"], a["iscrowd"]) for a in of_tile]) for _, entry, of_tile in found]


def test_boxes_are_those_of_the_image_less_the_position_of_the_tile(record, tmp_path):
    """Tiles from 0 to 60, 30 to 90 and 40 to 100."""
    found = cut(record([35.5, 10, 20, 30.25], [70, 0, 30, 60]), tmp_path / "tiles")

    assert [annotations for _, annotations in found] == [
        [(3, [35.5, 10, 20, 30.25], 0)],
        [(3, [5.5, 10, 20, 30.25], 0), (7, [40, 0, 20, 60], 0)],
        [(3, [0, 10, 15.5, 30.25], 0), (7, [30, 0, 30, 60], 0)],
    ]


def test_the_pixels_of_a_tile_are_those_of_the_image(record, tmp_path):
    whole = np.asarray(Image.open(record()["file_name"]))

    for (entry, _), x in zip(cut(record(), tmp_path / "tiles"), (0, 30, 40), strict=True):
        with Image.open(tmp_path / "tiles" / entry["file_name"]) as tile:
            assert (np.asarray(tile) == whole[:, x : x + 60]).all()
            assert tile.size == (entry["width"], entry["height"]) == (60, 60)


def test_a_box_of_which_too_little_is_visible_becomes_a_crowd_region(record, tmp_path):
    """What is neither object nor background; a line of less than a pixel is nothing."""
    of_image = record([50, 10, 20, 20], [54, 0, 40, 10], [59.5, 50, 10, 10], [99.75, 0, 0.25, 9])

    (_, half), *_, (_, last) = cut(of_image, tmp_path / "tiles", overlap=0, min_visible=0.5)
    (_, more), *_ = cut(of_image, tmp_path / "tiles", overlap=0, min_visible=0.51)

    assert half == [(3, [50, 10, 10, 20], 0), (7, [54, 0, 6, 10], 1)]
    assert more == [(3, [50, 10, 10, 20], 1), (7, [54, 0, 6, 10], 1)]
    assert (7, [59.75, 0, 0.25, 9], 0) in last, "an object that is whole stays, whatever its size"


def test_boxes_end_where_the_image_does_before_their_share_counts(record, tmp_path):
    (_, first), *_ = cut(record([-30, 0, 40, 10], [-5, -5, 5, 5], [5, 5, 0, 9]), tmp_path / "tiles")

    assert first == [(3, [0, 0, 10, 10], 0)], "boxes without area are nobody's"


def test_crowd_regions_stay_crowd_regions(record, tmp_path):
    (_, first), *_ = cut(record([0, 0, 100, 60], crowd=[0]), tmp_path / "tiles")

    assert first == [(3, [0, 0, 60, 60], 1)]


def test_tiles_without_objects_can_be_left_out(record, tmp_path):
    of_image = record([0, 0, 20, 20], [58, 0, 20, 20], crowd=[1])

    kept = cut(of_image, tmp_path / "kept")
    some = cut(of_image, tmp_path / "some", keep_empty=False)

    assert len(list((tmp_path / "kept").iterdir())) == len(kept) == 3
    assert [entry is None for entry, _ in some] == [False, True, True], "a crowd region is no object"
    assert len(list((tmp_path / "some").iterdir())) == 1


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.png", "PNG"), ("a.bmp", "PNG"), ("a.webp", "PNG")])
def test_tiles_of_jpeg_files_are_jpeg_files_and_all_others_lose_nothing(record, tmp_path, name, kind):
    ((entry, _),) = cut(record(name=name), tmp_path / "tiles", size=100)

    with Image.open(tmp_path / "tiles" / entry["file_name"]) as tile, Image.open(tmp_path / name) as image:
        assert tile.format == kind
        difference = np.abs(np.asarray(tile, int) - np.asarray(image.convert("RGB"), int))
        assert difference.max() == 0 if kind == "PNG" else 0 < difference.mean() < 5


def test_names_stay_in_the_folder_and_differ(record, tmp_path):
    records = [record(name=name) for name in ("a b\u2028;$(x).png", "é" * 60 + ".png", "..png.png")]
    records += [records[0], {**records[0]}]
    (tmp_path / "tiles").mkdir()

    names = [entry["file_name"] for _, entry, _ in Cutter(60, 0.5).cut(records, [3, 7], tmp_path / "tiles")]

    assert len(set(names)) == len(names) == 15 == len(list((tmp_path / "tiles").iterdir()))
    assert names[0] == "000000_a_b_x__0_0.png"
    assert all(name.isascii() and "/" not in name and len(name) < 120 for name in names)


def test_an_image_of_another_size_than_its_entry_is_refused(record, tmp_path):
    with pytest.raises(InputError, match=r"image\.png: the image has 100 x 60 pixels, not 100 x 61; correct width"):
        cut(record(size=(100, 61)), tmp_path / "tiles")
    with pytest.raises(InputError, match="5999 pixels"):
        cut(record(), tmp_path / "tiles", max_pixels=5999)


def test_the_annotation_file_is_a_dataset(record, tmp_path):
    records = [record([0, 0, 20, 20], [58, 0, 20, 20]), record(name="empty.png")]
    tiles = tmp_path / "tiles"
    tiles.mkdir()

    counts = write_coco(tmp_path / "tiles.json", {3: "cat", 7: "dög"}, Cutter(60, 0.5).cut(records, [3, 7], tiles))

    content = json.loads((tmp_path / "tiles.json").read_text())
    assert sorted(path.name for path in tmp_path.glob("tiles*")) == ["tiles", "tiles.json"], "no draft is left"
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dög"}]
    assert content["annotations"][2] == {
        "id": 3, "image_id": 2, "category_id": 7, "bbox": [28, 0, 20, 20], "area": 400, "iscrowd": 0
    }  # fmt: skip
    assert (counts.images, counts.tiles, counts.empty, counts.objects, counts.regions) == (2, 6, 3, 3, 1)
    dicts = load("tiles_test", coco_source(str(tmp_path / "tiles.json"), str(tiles)))
    assert [len(d["annotations"]) for d in dicts] == [2, 1, 1, 0, 0, 0]
