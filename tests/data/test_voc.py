"""Pascal VOC's xml files: pixel conventions, the image of a file, and errors."""

import pytest
from PIL import Image

from atss.data.voc import find_voc, read_xml
from tests.own_data import write_image, write_text, write_voc, xml

SIZE = (64, 48)
BOX = [10, 20, 30, 15]
EDGE = [4, 3, 60, 45]
CAT = xml("a.png", SIZE, [("cat", BOX)])


def read(folder, split="train"):
    return find_voc(str(folder))[split].read()


def splits_with(*boxes):
    return {"train": [("a.png", SIZE, [("cat", box) for box in boxes])]}


@pytest.mark.parametrize(
    "boxes, first, last, explanation",
    [
        ([BOX, EDGE], 1, 0, "pixels, counted from 1: no box begins at 0"),
        ([BOX, [0, 0, 5, 5]], 0, -1, "pixels, counted from 0: some boxes begin at 0"),
        ([BOX, [0, 0, 5, 5], EDGE], 0, 0, "edges, from 0: some boxes begin at 0, and some end at"),
        ([[10.5, 20, 30, 15.25]], 0, 0, "edges, from 0: some have fractions"),
    ],
)
def test_the_pixel_convention_follows_from_all_boxes_and_is_explained(tmp_path, boxes, first, last, explanation):
    write_voc(tmp_path, splits=splits_with(*boxes), first=first, last=last)

    content = read(tmp_path)

    assert [a["bbox"] for a in content.coco["annotations"]] == boxes
    assert explanation in content.problems[0].examples[0] and content.problems[0].severity == "note"


def test_all_splits_share_the_pixel_convention_and_the_classes(tmp_path):
    splits = {**splits_with([0, 0, 5, 5]), "val": [("b.png", SIZE, [("dog", BOX)])]}
    write_voc(tmp_path, splits=splits, first=0, last=-1)

    train, val = (read(tmp_path, split).coco for split in ("train", "val"))

    assert val["annotations"][0]["bbox"] == BOX
    assert train["categories"] == val["categories"]
    assert [category["name"] for category in val["categories"]] == ["cat", "dog"]


def test_the_image_with_the_name_of_the_xml_file_has_precedence_and_a_missing_one_keeps_its_name(tmp_path):
    write_voc(tmp_path, splits=splits_with(BOX))
    write_image(tmp_path / "JPEGImages/other.png", SIZE)
    (tmp_path / "JPEGImages/a.png").unlink()
    assert read(tmp_path).coco["images"][0]["file_name"] == "JPEGImages/a.png"

    write_image(tmp_path / "JPEGImages/a.png", SIZE)
    write_text(tmp_path / "Annotations/a.xml", xml("C:\\old\\folder\\other.png", SIZE, [("cat", BOX)]))
    assert read(tmp_path).coco["images"][0]["file_name"] == "JPEGImages/a.png"


@pytest.mark.parametrize("size", [None, (0, 0), ("?", "?")])
def test_a_size_that_is_not_given_is_read_from_the_image(tmp_path, size):
    write_voc(tmp_path, splits=splits_with(BOX))
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", SIZE).save(tmp_path / "JPEGImages/a.png", exif=turned)
    write_text(tmp_path / "Annotations/a.xml", xml("a.png", size, [("cat", BOX)]))

    image = read(tmp_path).coco["images"][0]

    assert (image["width"], image["height"]) == SIZE[::-1], "as rotated by the EXIF orientation"


def test_difficult_objects_count_and_parts_of_objects_do_not(tmp_path):
    write_voc(tmp_path, splits=splits_with(BOX))
    bndbox = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    part = f"<part><name>ear</name>{bndbox}</part>"
    both = f"<annotation><object><name>cat</name><difficult>1</difficult>{bndbox}{part}</object></annotation>"
    write_text(tmp_path / "Annotations/a.xml", both)

    assert [a["bbox"] for a in read(tmp_path).coco["annotations"]] == [[4, 4, 5, 5]]


@pytest.mark.parametrize(
    "text, reason",
    [
        ("<annotation>", "no element found"),
        ("", "no element found"),
        ("<html></html>", "expected <annotation>, got <html>"),
        (xml("a.png", SIZE, [("", BOX)]), "object 1 has no name"),
        (CAT.replace("<xmax>40</xmax>", ""), r"object 1 \(cat\): expected numbers in bndbox"),
        (CAT.replace("40", "nan"), "expected numbers in bndbox"),
        (CAT.replace("40", "1e400"), "expected numbers in bndbox"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>' + xml("&x;", SIZE, []), "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "file:///etc/hostname">' + xml("a.png", SIZE, []), "DOCTYPE"),
    ],
)
def test_malformed_xml_files_are_named_and_the_others_are_read(tmp_path, text, reason):
    write_voc(tmp_path, splits=splits_with(BOX))
    write_text(tmp_path / "ImageSets/Main/train.txt", "a\nb\nc\n")
    write_text(tmp_path / "Annotations/b.xml", text)

    content = read(tmp_path)

    (error,) = (problem for problem in content.problems if problem.severity == "error")
    assert error.extent() == "2 of 3 files"
    with pytest.raises(Exception, match=reason):
        read_xml(tmp_path / "Annotations/b.xml")
    assert error.examples[0].startswith("Annotations/b.xml: ")
    assert error.examples[1] == "Annotations/c.xml: is missing, but ImageSets lists it"
    assert len(content.coco["annotations"]) == 1
