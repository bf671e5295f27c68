"""Pascal VOC format: one xml file per image.

A box is given by its first and last pixel, xmin to xmax, counted from 1. Many programs that write the format count from
0 or write edges; see `pixel_convention`.
"""

import os
import xml.etree.ElementTree as ElementTree
from functools import cache

from ..errors import InputError, first_line
from . import sources
from .image_io import upright_size
from .image_paths import with_slashes
from .problems import problems_of

SIDES = ("xmin", "ymin", "xmax", "ymax")


def find_voc(folder):
    """dict from split to `Source` of a folder in Pascal VOC format, empty if the folder has another format."""
    splits = listed_by_sets(folder) or listed_by_split(folder)
    # The classes and the pixel convention follow from all splits together.
    contents = cache(lambda: read_voc(folder, splits))
    return {split: sources.Source(folder, lambda split=split: contents()[split], folder) for split in splits}


def listed_by_sets(folder):
    """Files in Annotations/ and JPEGImages/, with the splits of ImageSets/Main/, as in the VOC datasets.

    Returns a dict from split to (paths of xml files, folder of their images). All are "train" if there are no lists.
    """
    annotations, images = sources.subfolder(folder, "Annotations"), image_folder(folder)
    files = sources.list_folder(annotations, ".xml")
    if not files or not images:
        return {}
    lists = os.path.join(folder, "ImageSets", "Main")
    names = {sources.stem_of(name) for name in sources.list_folder(lists, ".txt")}
    list_names = {split: split for split in sources.SPLITS if split in names}
    if "trainval" in names:
        list_names.setdefault("train", "trainval")
    if not list_names:
        return {"train": ([os.path.join(annotations, name) for name in files], images)}
    stems = {sources.stem_of(name) for name in files}
    found = {}
    for split, name in list_names.items():
        lines = sources.read_lines(os.path.join(lists, f"{name}.txt")).values()
        # Some lists have 1 or -1 after the name.
        listed = [line if line in stems else line.split()[0] for line in lines]
        # Names must not lead out of the folder.
        listed = dict.fromkeys(os.path.basename(with_slashes(stem)) for stem in listed)
        found[split] = [os.path.join(annotations, f"{stem}.xml") for stem in listed], images
    return found


def listed_by_split(folder):
    """As `listed_by_sets`: files in `<split>/Annotations`, or beside the images of `<split>` or ("train") `folder`."""
    found = {}
    for split, place in {**sources.split_folders(folder), "": folder}.items():
        annotations, images = sources.subfolder(place, "Annotations"), image_folder(place)
        if not (annotations and images and split):
            annotations, images = place, place
        files = sources.list_folder(annotations, ".xml")
        if files and sources.list_folder(images, *sources.EXTENSIONS) and (split or not found):
            found[split or "train"] = [os.path.join(annotations, name) for name in files], images
    return found


def image_folder(folder):
    return sources.subfolder(folder, "JPEGImages") or sources.subfolder(folder, "images")


def read_voc(folder, splits):
    """dict from split to the `Content` of its xml files; `splits` is as returned by `listed_by_sets`."""
    found, problems = {}, {}
    for split, (files, images) in splits.items():
        found[split], reasons = {}, []
        for xml in files:
            place = os.path.relpath(xml, folder)
            try:
                found[split][place] = read_annotation(xml, images)
            except InputError as error:
                reasons.append(f"{place}: {error}")
        problems[split] = problems_of("xml files that cannot be used", reasons, len(files))
    labels = [label for of_split in found.values() for label in of_split.values()]
    names = sorted({name for *_, objects in labels for name, _ in objects})
    numbers = {name: number for number, name in enumerate(names)}
    first, last, explanation = pixel_convention(labels)
    contents = {}
    for split, of_split in found.items():
        images = []
        for place, (path, width, height, objects) in of_split.items():
            boxes = [
                (numbers[name], [xmin - first, ymin - first, xmax + last - xmin, ymax + last - ymin], place)
                for name, (xmin, ymin, xmax, ymax) in objects
            ]
            images.append((os.path.relpath(path, folder), width, height, boxes))
        coco = sources.coco_content(dict(enumerate(names)), images)
        counting = problems_of("how pixels are counted", [explanation], 1)
        contents[split] = sources.Content(coco, folder, problems[split] + counting)
    return contents


def pixel_convention(labels):
    """What the coordinates of a dataset mean, given what `read_annotation` returns for all of its files.

    They are pixels from 1, as in VOC, if none is below 1, and pixels from 0 otherwise. They are edges if some have
    fractions, or if a box that ended with its last pixel would end outside of its image.

    Returns what to subtract from xmin, what to add to xmax - xmin for the width, and an explanation in one line.
    """
    boxes = [(box, width, height) for _, width, height, objects in labels for _, box in objects]
    if any(x % 1 for box, *_ in boxes for x in box):
        return 0, 0, "xmin to xmax are edges, from 0: some have fractions"
    if not any(min(box[:2]) < 1 for box, *_ in boxes):
        return 1, 1, "xmin to xmax are pixels, counted from 1: no box begins at 0"
    if any(box[2] == width or box[3] == height for box, width, height in boxes):
        explanation = "some boxes begin at 0, and some end at the image's width or height"
        return 0, 0, f"xmin to xmax are edges, from 0: {explanation}"
    return 0, 1, "xmin to xmax are pixels, counted from 0: some boxes begin at 0"


def read_annotation(xml, images):
    """Path of the image of an xml file, width, height, and a list of (class name, [xmin, ymin, xmax, ymax]).

    The size is read from the image if the file does not give it. Raises InputError, with the reason, if the file cannot
    be used.
    """
    if not os.path.exists(xml):
        raise InputError("is missing, but ImageSets lists it")
    try:
        file_name, size, objects = read_xml(xml)
    except (OSError, LookupError, ValueError, ElementTree.ParseError) as error:
        raise InputError(first_line(error)) from error
    path = find_image(images, sources.stem_of(xml), file_name)
    try:
        return path, *(size or upright_size(path)), objects
    except InputError as error:
        raise InputError(f"gives no size, and {error}") from error


def find_image(folder, stem, given):
    """Path of the image with the name of the xml file, else of the image that the xml file names."""
    candidates = [stem + extension for lower in sources.EXTENSIONS for extension in (lower, lower.upper())]
    if os.path.splitext(given)[0] == stem:
        candidates.insert(0, given)
    paths = [os.path.join(folder, name) for name in (*candidates, given or f"{stem}.jpg")]
    return next(filter(os.path.isfile, paths), paths[-1])


class WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses documents with declarations, such as entities that expand without bound."""

    def doctype(self, *declared):
        raise ValueError("has a DOCTYPE, which annotations do not need")


def read_xml(path):
    """File name of the image, "" if not given; (width, height), None if not given; and objects as `read_annotation`.

    Raises OSError, InputError if the file cannot be read; LookupError, ValueError, ElementTree.ParseError, with the
    reason, if it is malformed.
    """
    sources.check_file(path, sources.MAX_TEXT)
    parser = ElementTree.XMLParser(target=WithoutDoctype())
    encoding = sources.encoding_of(path)
    if encoding.startswith("utf-16"):
        # As text, because programs that save a file anew in UTF-16 do not change the encoding that it declares.
        with open(path, encoding=encoding) as file:
            parser.feed(file.read())
        root = parser.close()
    else:
        root = ElementTree.parse(path, parser).getroot()
    if root.tag != "annotation":
        raise ValueError(f"expected <annotation>, got <{root.tag}>")
    try:
        width, height = (int(float(root.findtext(f"size/{side}", ""))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        width = height = 0
    objects = []
    for number, element in enumerate(root.iter("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"object {number} has no name")
        try:
            box = [float(element.findtext(f"bndbox/{side}", "")) for side in SIDES]
        except ValueError:
            box = []
        if not box or not all(abs(x) < 1e9 for x in box):
            raise ValueError(f"object {number} ({name}): expected numbers in bndbox: {', '.join(SIDES)}")
        objects.append((name, [int(x) if x % 1 == 0 else x for x in box]))
    file_name = os.path.basename(with_slashes((root.findtext("filename") or "").strip()))
    return file_name, (width, height) if min(width, height) > 0 else None, objects
