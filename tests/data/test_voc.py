"""Pascal VOC's xml files: how numbers are meant, which image belongs to a file, and what is refused."""

import pytest
from PIL import Image

from atss.data.voc import find_voc, read_xml
from tests.own_data import write_image, write_text, write_voc, xml

SIZE = (64, 48)
BOX = [10, 20, 30, 15]
EDGE = [4, 3, 60, 45]


def read(folder, part="train"):
    return find_voc(str(folder))[part].read()


def parts_with(*boxes):
    return {"train": [("a.png", SIZE, [("cat", box) for box in boxes])]}


@pytest.mark.parametrize(
    "boxes, first, last, said",
    [
        ([BOX, EDGE], 1, 0, "pixels, counted from 1: no box begins at 0"),
        ([BOX, [0, 0, 5, 5]], 0, -1, "pixels, counted from 0: some boxes begin at 0"),
        ([BOX, [0, 0, 5, 5], EDGE], 0, 0, "edges, from 0: some boxes begin at 0, and some end at"),
        ([[10.5, 20, 30, 15.25]], 0, 0, "edges, from 0: some have fractions"),
    ],
)
def test_how_numbers_are_meant_is_seen_from_all_of_them_and_said(tmp_path, boxes, first, last, said):
    write_voc(tmp_path, parts=parts_with(*boxes), first=first, last=last)

    content = read(tmp_path)

    assert [a["bbox"] for a in content.coco["annotations"]] == boxes
    assert said in content.problems[0].examples[0] and content.problems[0].severity == "note"


def test_parts_count_alike_and_have_the_same_classes(tmp_path):
    parts = {**parts_with([0, 0, 5, 5]), "val": [("b.png", SIZE, [("dog", BOX)])]}
    write_voc(tmp_path, parts=parts, first=0, last=-1)

    train, val = (read(tmp_path, part).coco for part in ("train", "val"))

    assert val["annotations"][0]["bbox"] == BOX
    assert train["categories"] == val["categories"]
    assert [category["name"] for category in val["categories"]] == ["cat", "dog"]


def test_a_image_has_the_name_of_its_xml_file_whatever_that_says(tmp_path):
    write_voc(tmp_path, parts=parts_with(BOX))
    write_text(tmp_path / "Annotations/a.xml", xml("C:\\old\\folder\\other.jpg", SIZE, [("cat", BOX)]))

    assert read(tmp_path).coco["images"][0]["file_name"] == "JPEGImages/a.png"


@pytest.mark.parametrize("size", [None, (0, 0), ("?", "?")])
def test_a_size_that_is_not_given_is_the_images(tmp_path, size):
    write_voc(tmp_path, parts=parts_with(BOX))
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", SIZE).save(tmp_path / "JPEGImages/a.png", exif=turned)
    write_text(tmp_path / "Annotations/a.xml", xml("a.png", size, [("cat", BOX)]))

    image = read(tmp_path).coco["images"][0]

    assert (image["width"], image["height"]) == SIZE[::-1], "as the EXIF orientation turns it"


def test_difficult_objects_are_objects_and_parts_of_objects_are_not(tmp_path):
    write_voc(tmp_path, parts=parts_with(BOX))
    bndbox = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    part = f"<part><name>ear</name>{bndbox}</part>"
    both = f"<annotation><object><name>cat</name><difficult>1</difficult>{bndbox}{part}</object></annotation>"
    write_text(tmp_path / "Annotations/a.xml", both)

    assert [a["bbox"] for a in read(tmp_path).coco["annotations"]] == [[4, 4, 5, 5]]


@pytest.mark.parametrize(
    "text, said",
    [
        ("<annotation>", "no element found"),
        ("", "no element found"),
        ("<html></html>", "expected <annotation>, got <html>"),
        (xml("a.png", SIZE, [("", BOX)]), "object 1 has no name"),
        (
            xml("a.png", SIZE, [("cat", BOX)]).replace("<xmax>40</xmax>", ""),
            r"object 1 \(cat\): expected numbers in bndbox",
        ),
        (xml("a.png", SIZE, [("cat", BOX)]).replace("40", "nan"), "expected numbers in bndbox"),
        (xml("a.png", SIZE, [("cat", BOX)]).replace("40", "1e400"), "expected numbers in bndbox"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>' + xml("&x;", SIZE, []), "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "file:///etc/hostname">' + xml("a.png", SIZE, []), "DOCTYPE"),
    ],
)
def test_xml_files_that_cannot_be_used_are_named_and_the_others_read(tmp_path, text, said):
    write_voc(tmp_path, parts=parts_with(BOX))
    write_text(tmp_path / "ImageSets/Main/train.txt", "a\nb\nc\n")
    write_text(tmp_path / "Annotations/b.xml", text)

    content = read(tmp_path)

    (error,) = (problem for problem in content.problems if problem.severity == "error")
    assert error.extent() == "2 of 3 files"
    with pytest.raises(Exception, match=said):
        read_xml(tmp_path / "Annotations/b.xml")
    assert error.examples[0].startswith("Annotations/b.xml: ")
    assert error.examples[1] == "Annotations/c.xml: is missing, but ImageSets lists it"
    assert len(content.coco["annotations"]) == 1


def test_images_that_are_missing_stay_named(tmp_path):
    write_voc(tmp_path, parts=parts_with(BOX))
    write_image(tmp_path / "JPEGImages/other.png", SIZE)
    (tmp_path / "JPEGImages/a.png").unlink()

    assert read(tmp_path).coco["images"][0]["file_name"] == "JPEGImages/a.png"
