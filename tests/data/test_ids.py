"""Entries that are made complete: ids of all kinds, and boxes from segmentations."""

import json
from pathlib import Path

import pytest

from atss.data.coco import classes_of, dicts_of
from atss.data.entries import sound_content
from atss.data.ids import translated


@pytest.fixture
def read(coco_file):
    """Function: change of the small dataset -> its valid content and {kind: count} of its problems."""

    def make(change):
        path, _ = coco_file(change)
        content, problems = sound_content(json.loads(Path(path).read_text()))
        assert all(len(problem.line().splitlines()) == 1 for problem in problems)
        return content, {problem.kind: problem.count for problem in problems}

    return make


def ids(images=int, image_ids=int, categories=int, category_ids=int):
    """Change: ids and references, 0 to 2 and 3 or 7, become these functions of themselves."""

    def change(content):
        for key, of in (("images", images), ("categories", categories)):
            for entry in content[key]:
                entry["id"] = of(entry["id"])
        for annotation in content["annotations"]:
            annotation |= {"image_id": image_ids(annotation["image_id"])}
            annotation |= {"category_id": category_ids(annotation["category_id"])}

    return change


def name(number):
    return f"image {number}"


def digest(number):
    """A text of an integer of 64 bits without sign, as hash functions give them; 63 bits hold some of them."""
    return str(2**63 - 1 + number)


IMAGES, CLASSES = "ids of images that are no integers", "ids of categories that are no integers"


@pytest.mark.parametrize(
    "change, kinds, own_ids",
    [
        (ids(), {}, None),
        (ids(images=str), {IMAGES: 3}, {"image_id": {0: "0", 1: "1", 2: "2"}}),
        (ids(image_ids=str), {IMAGES: 3}, None),
        (ids(images=float, image_ids=str), {IMAGES: 6}, None),
        (ids(images=name, image_ids=name), {IMAGES: 6}, {"image_id": {n: name(n) for n in range(3)}}),
        (ids(images=digest, image_ids=digest), {IMAGES: 6}, {"image_id": {n: digest(n) for n in range(3)}}),
        (ids(category_ids=float), {CLASSES: 3}, None),
        (ids(categories=str, category_ids=str), {CLASSES: 5}, {"category_id": {3: "3", 7: "7"}}),
        (ids(categories=hex, category_ids=hex), {CLASSES: 5}, {"category_id": {0: "0x3", 1: "0x7"}}),
    ],
)
def test_ids_that_agree_are_made_integers(read, coco_file, change, kinds, own_ids):
    content, problems = read(change)

    assert problems == kinds and content.get("own_ids") == own_ids
    assert list(classes_of(content).values()) == ["cat", "dog"]
    dicts = dicts_of(content, "")
    assert [(d["file_name"], d["image_id"]) for d in dicts] == [("0.png", 0), ("1.png", 1), ("2.png", 2)]
    assert [[a["category_id"] for a in d["annotations"]] for d in dicts] == [[0], [1], [0]]
    assert sound_content(content)[1] == []


@pytest.mark.parametrize(
    "change, kind",
    [
        (ids(images=name), "annotations of no image"),
        (ids(images="0{}".format), "annotations of no image"),
        (ids(image_ids=lambda n: n + 0.5), "annotations of no image"),
        (ids(categories=hex), "annotations of unknown classes"),
        (lambda c: c["images"][2].update(id="1"), "images with an id that another has"),
        (lambda c: c["categories"][0].update(id=7.0), "categories with an id that another has"),
        (lambda c: c["images"][0].update(id=True), "malformed images"),
        (lambda c: c["images"][0].update(id="a\nb"), "malformed images"),
    ],
)
def test_ids_that_do_not_agree_or_repeat_are_errors(read, change, kind):
    assert kind in read(change)[1]


def test_ids_of_any_length_make_a_short_message(coco_file):
    path, _ = coco_file(lambda c: c["categories"][0].update(id="long" * 10_000))

    _, problems = sound_content(json.loads(Path(path).read_text()))

    (unknown,) = (problem for problem in problems if problem.kind == "annotations of unknown classes")
    assert len(unknown.line()) < 1000


@pytest.mark.parametrize("own", [[1, 1, 1], [None, 2, 3], ["a", "b", "a"], [2**63, 1, 2], [[], {}, True]])
def test_annotations_are_numbered_where_their_ids_are_not_different_integers(read, own):
    content, problems = read(lambda c: [a.update(id=new) for a, new in zip(c["annotations"], own, strict=True)])

    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3]
    assert "annotations without an id of their own" in problems


@pytest.mark.parametrize("own", [["a", "b", "c"], ["7", "8", "9"]])
def test_annotations_whose_ids_are_different_texts_are_a_note(read, own):
    content, problems = read(lambda c: [a.update(id=new) for a, new in zip(c["annotations"], own, strict=True)])

    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3]
    assert problems == {"ids of annotations that are texts": 3}


def test_annotations_may_have_no_ids(read):
    content, problems = read(lambda c: [a.pop("id") for a in c["annotations"]])

    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3]
    assert problems == {"annotations without an id of their own": 3}


def test_results_are_translated_to_other_ids_and_back():
    results = [{"image_id": 0, "category_id": 3, "score": 0.5}, {"image_id": 9, "category_id": 3, "score": 0.4}]
    own = {"image_id": {0: "image 0"}}

    there = translated(results, own)

    assert [result["image_id"] for result in there] == ["image 0", 9]
    assert translated(there, {"image_id": {"image 0": 0}}) == results == translated(results, {})


@pytest.mark.parametrize(
    "segmentation, box, error",
    [
        ([[5, 5, 25, 5, 25, 35]], [5, 5, 20, 30], None),
        ({"size": [48, 64], "counts": [48 * 5 + 5, 30, 18, 30, 48 * 64 - 48 * 5 - 83]}, [5, 5, 2, 30], None),
        ({"size": [64, 48], "counts": [64 * 48]}, None, "'segmentation' must be a mask of the image's size, [48, 64]"),
        ([[5, 5, 25]], None, "annotations[0] (id 0): 'segmentation' must have x and y of each point"),
        ([[5, 5, 2e9, 5, 25, 35]], None, "'segmentation' must have x and y of each point, in pixels"),
        ([], None, "'bbox' must be [x, y, width, height] in pixels, got None"),
    ],
)
@pytest.mark.parametrize("bbox", [None, []])
def test_an_annotation_without_a_box_gets_that_of_its_segmentation(coco_file, segmentation, box, error, bbox):
    path, _ = coco_file(lambda c: c["annotations"][0].update(bbox=bbox, segmentation=segmentation))

    content, (problem,) = sound_content(json.loads(Path(path).read_text()))

    if error:
        assert problem.severity == "error" and error.replace("None", repr(bbox)) in problem.examples[0]
    else:
        assert (problem.kind, problem.severity) == ("annotations with a segmentation alone", "note")
        assert content["annotations"][0]["bbox"] == box
