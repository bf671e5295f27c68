"""Pascal VOC's format: one xml file per image.

A box is given by its first and last pixel, xmin to xmax, counted from 1. Many programs that write the format count from
0 or mean edges; see `counting`.
"""

import os
import xml.etree.ElementTree as ElementTree
from functools import cache
from typing import NamedTuple

from ..errors import InputError, first_line
from .image_io import upright_size
from .problems import problems_of
from .sources import (
    EXTENSIONS,
    MAX_TEXT,
    SPLITS,
    CocoBuilder,
    Content,
    check_file,
    list_folder,
    read_lines,
    sources_of,
    split_folders,
    stem_of,
    subfolder,
    with_extension,
)  # fmt: skip

SIDES = ("xmin", "ymin", "xmax", "ymax")


class Labels(NamedTuple):
    """What an xml file says about its image.

    file_name: name of the image.
    size: (width, height), None where it is not given.
    objects: list of (class, [xmin, ymin, xmax, ymax]).
    """

    file_name: str
    size: tuple | None
    objects: list


def find_voc(folder):
    """dict from split to `Source` of a folder in Pascal VOC's format, empty where it has another."""
    splits = listed_by_sets(folder) or listed_by_split(folder)
    # Classes, and how pixels are counted, follow from all splits together.
    read = cache(lambda: read_voc(folder, splits))
    return sources_of(folder, splits, lambda split: read()[split])


def listed_by_sets(folder):
    """Files of Annotations/, JPEGImages/ and ImageSets/Main/, as in the VOC datasets; without lists all are "train".

    Returns:
        dict from split to a list of pairs: path of an xml file, and the folder of its image.
    """
    annotations, images = subfolder(folder, "Annotations"), image_folder(folder)
    files = with_extension(list_folder(annotations), ".xml") if annotations else []
    if not files or not images:
        return {}
    lists = os.path.join(folder, "ImageSets", "Main")
    names = {stem_of(name) for name in with_extension(list_folder(lists), ".txt")}
    splits = {split: split for split in SPLITS if split in names}
    if "train" not in splits and "trainval" in names:
        splits["train"] = "trainval"
    if not splits:
        return {"train": [(os.path.join(annotations, name), images) for name in files]}
    stems = {stem_of(name) for name in files}
    found = {}
    for split, name in splits.items():
        lines = read_lines(os.path.join(lists, f"{name}.txt")).values()
        # Some lists have 1 or -1 after the name.
        listed = dict.fromkeys(line if line in stems else line.split()[0] for line in lines)
        # They name files of this folder, and of no other.
        listed = [os.path.basename(stem.replace("\\", "/")) for stem in listed]
        found[split] = [(os.path.join(annotations, f"{stem}.xml"), images) for stem in listed]
    return found


def listed_by_split(folder):
    """Files of `<split>/Annotations`, or xml files beside the images of `<split>` or, as "train", of the folder.

    Returns:
        as `listed_by_sets`.
    """
    found = {}
    for split, place in {**split_folders(folder), "": folder}.items():
        annotations, images = subfolder(place, "Annotations"), image_folder(place)
        if not (annotations and images and split):
            annotations, images = place, place
        files = with_extension(list_folder(annotations), ".xml")
        if files and with_extension(list_folder(images), *EXTENSIONS) and (split or not found):
            found[split or "train"] = [(os.path.join(annotations, name), images) for name in files]
    return found


def image_folder(folder):
    return subfolder(folder, "JPEGImages") or subfolder(folder, "images")


def read_voc(folder, splits):
    """Read the xml files of all splits.

    Args:
        folder: folder of the dataset.
        splits: as `listed_by_sets` returns it.

    Returns:
        dict from split to `Content`.
    """
    labels, reasons = {}, {}
    for split, files in splits.items():
        labels[split], reasons[split] = {}, []
        for xml, images in files:
            place = os.path.relpath(xml, folder)
            try:
                labels[split][place] = read_labels(xml, images)
            except InputError as error:
                reasons[split].append(f"{place}: {error}")
    everything = [found for of_split in labels.values() for found in of_split.values()]
    names = sorted({name for found in everything for name, _ in found.objects})
    numbers = {name: number for number, name in enumerate(names)}
    first, last, counted = counting(everything)
    contents = {}
    for split, of_split in labels.items():
        builder = CocoBuilder(dict(enumerate(names)))
        for place, found in of_split.items():
            builder.add_image(os.path.relpath(found.file_name, folder), *found.size)
            for name, (xmin, ymin, xmax, ymax) in found.objects:
                box = [xmin - first, ymin - first, xmax + last - xmin, ymax + last - ymin]
                builder.add_annotation(numbers[name], box, place)
        problems = problems_of("xml files that cannot be used", reasons[split], len(splits[split]))
        problems += problems_of("how pixels are counted", [counted], 1)
        contents[split] = Content(builder.coco, folder, problems)
    return contents


def counting(labels):
    """How the numbers of a dataset are meant.

    They count pixels from 1, as in VOC, where none is below 1, and from 0 otherwise. They are edges where they have
    fractions, or where a box that ended with its last number would end outside of its image.

    Args:
        labels: list of `Labels`.

    Returns:
        what to subtract from xmin, what to add to xmax - xmin for the width, and a line that explains it.
    """
    boxes = [(box, found.size) for found in labels for _, box in found.objects]
    if any(x % 1 for box, _ in boxes for x in box):
        return 0, 0, "xmin to xmax are edges, from 0: some have fractions"
    if not any(min(box[:2]) < 1 for box, _ in boxes):
        return 1, 1, "xmin to xmax are pixels, counted from 1: no box begins at 0"
    if any(box[2] == size[0] or box[3] == size[1] for box, size in boxes):
        explanation = "some boxes begin at 0, and some end at the image's width or height"
        return 0, 0, f"xmin to xmax are edges, from 0: {explanation}"
    return 0, 1, "xmin to xmax are pixels, counted from 0: some boxes begin at 0"


def read_labels(xml, images):
    """The `Labels` of an xml file, with the path of its image, and the image's size where the file has none.

    Raises:
        InputError: there are none; says why.
    """
    if not os.path.exists(xml):
        raise InputError("is missing, but ImageSets lists it")
    try:
        labels = read_xml(xml)
    except (OSError, LookupError, ValueError, ElementTree.ParseError) as error:
        raise InputError(first_line(error)) from error
    path = os.path.join(images, image_name(xml, images, labels.file_name))
    size = labels.size
    if size is None:
        try:
            size = upright_size(path)
        except (OSError, ValueError) as error:
            raise InputError(f"gives no size, and its image cannot be read ({first_line(error)})") from error
    return labels._replace(file_name=path, size=size)


def image_name(xml, images, given):
    """The image with the name of the xml file, or else the one that the file names."""
    stem = stem_of(xml)
    if os.path.splitext(given)[0] == stem and os.path.isfile(os.path.join(images, given)):
        return given
    for extension in EXTENSIONS:
        for name in (stem + extension, stem + extension.upper()):
            if os.path.isfile(os.path.join(images, name)):
                return name
    return given or f"{stem}.jpg"


class WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses documents with declarations, such as entities that grow."""

    def doctype(self, *declared):
        raise ValueError("has a DOCTYPE, which annotations do not need")


def read_xml(path):
    """The `Labels` of an xml file.

    Raises:
        OSError, InputError: it cannot be read.
        LookupError, ValueError, ElementTree.ParseError: it is not in Pascal VOC's format; says why.
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
