"""Pascal VOC's format: an xml file an image.

A box is given by its first and last pixel, xmin to xmax, counted from 1. Many programs that write the format count from
0 or mean edges; see `counting`.
"""

import os
import xml.etree.ElementTree as ElementTree
from functools import cache
from typing import NamedTuple

from ..errors import InputError, first_line
from .problems import problems_of
from .sources import (
    EXTENSIONS,
    MAX_TEXT,
    PARTS,
    Content,
    Source,
    check_file,
    list_folder,
    part_folders,
    subfolder,
    upright_size,
    with_extension,
)  # fmt: skip

SIDES = ("xmin", "ymin", "xmax", "ymax")


class Listed(NamedTuple):
    """An image of a part: the path of its xml file and the folder that the image is in."""

    xml: str
    images: str


class Labels(NamedTuple):
    """What an xml file says.

    file_name: of the image.
    size: (width, height), None where it gives none.
    objects: list of (class, [xmin, ymin, xmax, ymax]).
    """

    file_name: str
    size: tuple | None
    objects: list


def find_voc(folder):
    """Parts of a folder in Pascal VOC's format.

    Returns:
        dict from part to `Source`, empty where the folder has none.
    """
    parts = listed_by_sets(folder) or listed_by_part(folder)
    # Classes, and how pixels are counted, are those of all parts together.
    read = cache(lambda: read_voc(folder, parts))
    return {part: Source(folder, lambda part=part: read()[part], folder) for part in parts}


def listed_by_sets(folder):
    """dict from part to list of `Listed`, of Annotations/, JPEGImages/ and ImageSets/Main/ as in the VOC datasets.

    Without lists all is train.
    """
    annotations, images = subfolder(folder, "Annotations"), image_folder(folder)
    files = with_extension(list_folder(annotations), ".xml") if annotations else []
    if not files or not images:
        return {}
    lists = os.path.join(folder, "ImageSets", "Main")
    names = {os.path.splitext(name)[0] for name in with_extension(list_folder(lists), ".txt")}
    parts = {part: part for part in PARTS if part in names}
    if "train" not in parts and "trainval" in names:
        parts = {"train": "trainval", **parts}
    if not parts:
        return {"train": [Listed(os.path.join(annotations, name), images) for name in files]}
    stems = {os.path.splitext(name)[0] for name in files}
    found = {}
    for part, name in parts.items():
        path = os.path.join(lists, f"{name}.txt")
        check_file(path, MAX_TEXT)
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        # Some lists give 1 or -1 behind the name.
        chosen = dict.fromkeys(line if line in stems else line.split()[0] for line in lines)
        # They name files of this folder, and of no other.
        chosen = [os.path.basename(stem.replace("\\", "/")) for stem in chosen]
        found[part] = [Listed(os.path.join(annotations, f"{stem}.xml"), images) for stem in chosen]
    return found


def listed_by_part(folder):
    """dict from part to list of `Listed`, of `<part>/Annotations` and its images, or of xml files beside images.

    Without parts the folder itself is train.
    """
    found = {}
    for part, place in {**part_folders(folder), "": folder}.items():
        annotations, images = subfolder(place, "Annotations"), image_folder(place)
        if not (annotations and images and part):
            annotations, images = place, place
        files = with_extension(list_folder(annotations), ".xml")
        if files and with_extension(list_folder(images), *EXTENSIONS) and (part or not found):
            found[part or "train"] = [Listed(os.path.join(annotations, name), images) for name in files]
    return found


def image_folder(folder):
    return subfolder(folder, "JPEGImages") or subfolder(folder, "images")


def read_voc(folder, parts):
    """Read the xml files of all parts.

    Args:
        folder: that of the dataset.
        parts: dict from part to list of `Listed`.

    Returns:
        dict from part to `Content`.
    """
    read = {part: [read_or_reason(listed, folder) for listed in files] for part, files in parts.items()}
    labels = [found for of_part in read.values() for found in of_part if isinstance(found, Labels)]
    classes = sorted({name for found in labels for name, _ in found.objects})
    numbers = {name: number for number, name in enumerate(classes)}
    first, last, counted = counting(labels)
    note = problems_of(
        "note", "how pixels are counted", [counted], 1, "datasets", "see docs/own_data.md if that is wrong"
    )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    contents = {}
    for part, found in read.items():
        images, annotations, reasons = [], [], [reason for reason in found if isinstance(reason, str)]
        for listed, of_image in zip(parts[part], found, strict=True):
            if isinstance(of_image, str):
                continue
            width, height = of_image.size
            image_id = len(images)
            images.append({"id": image_id, "file_name": of_image.file_name, "width": width, "height": height})
            for name, (xmin, ymin, xmax, ymax) in of_image.objects:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": numbers[name],
                        "bbox": [xmin - first, ymin - first, xmax + last - xmin, ymax + last - ymin],
                        "place": os.path.relpath(listed.xml, folder),
                    }
                )
        problems = problems_of(
            "error", "xml files that cannot be used", reasons, len(found), "files", "correct or remove them"
        )
        coco = {"images": images, "annotations": annotations, "categories": categories}
        contents[part] = Content(coco, folder, problems + note)
    return contents


def counting(labels):
    """How the numbers of a dataset are meant.

    They count pixels from 1, as in VOC, where none is below 1; otherwise pixels from 0; and are edges where a box that
    ended with its last number would end beyond its image, or where numbers have fractions.

    Args:
        labels: list of `Labels`.

    Returns:
        what to subtract from xmin, what to add to xmax - xmin for the width, and a line that says it.
    """
    boxes = [(box, found.size) for found in labels for _, box in found.objects]
    if any(x % 1 for box, _ in boxes for x in box):
        return 0, 0, "xmin to xmax are edges, from 0: some have fractions"
    if not any(min(box[:2]) < 1 for box, _ in boxes):
        return 1, 1, "xmin to xmax are pixels, counted from 1: no box begins at 0"
    if any(box[2] == size[0] or box[3] == size[1] for box, size in boxes):
        return (
            0,
            0,
            "xmin to xmax are edges, from 0: some boxes begin at 0, and some end at the image's width or height",
        )
    return 0, 1, "xmin to xmax are pixels, counted from 0: some boxes begin at 0"


def read_or_reason(listed, folder):
    """The `Labels` of an image, with the path of the image in `folder`, and its size; or why there are none."""
    place = os.path.relpath(listed.xml, folder)
    if not os.path.exists(listed.xml):
        return f"{place}: is missing, but ImageSets lists it"
    try:
        labels = read_xml(listed.xml)
    except (OSError, LookupError, ValueError, ElementTree.ParseError, InputError) as error:
        return f"{place}: {first_line(error)}"
    path = os.path.join(listed.images, image_name(listed, labels.file_name))
    size = labels.size
    if size is None:
        try:
            size = upright_size(path)
        except (OSError, ValueError) as error:
            return f"{place}: gives no size, and its image cannot be read ({first_line(error)})"
    return labels._replace(file_name=os.path.relpath(path, folder), size=size)


def image_name(listed, given):
    """The file that has the name of the xml file; otherwise the one that is named inside."""
    stem = os.path.splitext(os.path.basename(listed.xml))[0]
    if os.path.splitext(given)[0] == stem and os.path.isfile(os.path.join(listed.images, given)):
        return given
    for extension in EXTENSIONS:
        for name in (stem + extension, stem + extension.upper()):
            if os.path.isfile(os.path.join(listed.images, name)):
                return name
    return given or f"{stem}.jpg"


class WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses documents that declare something, such as entities that grow."""

    def doctype(self, *declared):
        raise ValueError("has a DOCTYPE, which annotations do not need")


def read_xml(path):
    """The `Labels` of an xml file.

    Raises:
        OSError, InputError: it cannot be read.
        LookupError, ValueError, ElementTree.ParseError: it has not Pascal VOC's form; says what.
    """
    check_file(path, MAX_TEXT)
    root = ElementTree.parse(path, ElementTree.XMLParser(target=WithoutDoctype())).getroot()
    if root.tag != "annotation":
        raise ValueError(f"expected <annotation>, got <{root.tag}>")
    try:
        size = tuple(int(float(root.findtext(f"size/{side}", ""))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        size = None
    objects = []
    for number, found in enumerate(root.iter("object"), 1):
        name = (found.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"object {number} has no name")
        try:
            box = [float(found.findtext(f"bndbox/{side}", "")) for side in SIDES]
        except ValueError:
            box = []
        if not box or not all(abs(x) < 1e9 for x in box):
            raise ValueError(f"object {number} ({name}): expected numbers in bndbox: {', '.join(SIDES)}")
        objects.append((name, [int(x) if x % 1 == 0 else x for x in box]))
    file_name = os.path.basename((root.findtext("filename") or "").strip().replace("\\", "/"))
    return Labels(file_name, size if size and min(size) > 0 else None, objects)
