"""YOLO's format: one text file per image, one line per object, in fractions of the image's width and height."""

import math
import os
from functools import cache

import yaml

from ..errors import InputError, first_line
from .image_io import upright_size
from .problems import problems_of
from .sources import (
    EXTENSIONS,
    CocoBuilder,
    Content,
    check_file,
    list_folder,
    read_lines,
    sources_of,
    split_folders,
    split_of,
    stem_of,
    subfolder,
    with_extension,
)  # fmt: skip

# Files with the names of the classes, one per line, where no yaml file has them.
NAME_FILES = ("classes.txt", "obj.names")
# Maximum bytes of a yaml file, which is slow to read: names of a hundred thousand classes.
MAX_YAML = 1 << 20


def find_yolo_yaml(folder):
    """Splits that a yaml file at the top of a folder names.

    Returns:
        dict from split to `Source`, empty where there is no such file.

    Raises:
        InputError: data.yaml or dataset.yaml cannot be read.
    """
    path, config = find_yaml(folder)
    if not path:
        return {}
    root = os.path.join(folder, config["path"]) if isinstance(config.get("path"), str) else folder
    bases = [root, folder]
    values = {split_of(key): value for key, value in config.items() if split_of(key) and value}
    # Programs name a test split in every file, whether there is one or not.
    if "test" in values and not all(resolve(entry, bases) for entry in as_list(values["test"])):
        del values["test"]

    def images_of(split):
        found = []
        for entry in as_list(values[split]):
            place = resolve(entry, bases)
            if not place:
                what = f"{entry} does not exist" if isinstance(entry, str) else "an entry is not a path"
                raise InputError(f"{path}: {split}: {what}; correct it: paths start from the yaml file's folder")
            if os.path.isdir(place):
                found += images_in(place)
            elif place.lower().endswith(".txt"):
                found += images_listed(place, [os.path.dirname(place), *bases])
            else:
                found.append(place)
        return found

    return yolo_sources(folder, list(values), images_of, class_names(config["names"], path), "kpt_shape" in config)


def find_yolo_folders(folder):
    """Splits in `images/<split>` and `labels/<split>`, or `<split>/images` and `<split>/labels`, or all as "train".

    Returns:
        dict from split to `Source`, empty where the folder has none of them.
    """
    images, labels = subfolder(folder, "images"), subfolder(folder, "labels")
    has_both = images and labels
    places = split_folders(images) if has_both else {}
    if not places:
        for split, place in split_folders(folder).items():
            if subfolder(place, "images") and subfolder(place, "labels"):
                places[split] = subfolder(place, "images")
    if not places and has_both:
        places = {"train": images}
    if not places:
        return {}
    path, config = find_yaml(folder, ("names",))
    if path:
        names = class_names(config["names"], path)
    else:
        names = names_from_file([folder, labels, *map(label_folder, places.values())])
    return yolo_sources(folder, list(places), lambda split: images_in(places[split]), names)


def yolo_sources(folder, splits, images_of, names, has_keypoints=False):
    """dict from split to `Source`.

    Args:
        images_of: function of a split that returns the paths of its images.
        names: dict from the number of a class to its name; None to call classes by their numbers.
        has_keypoints: whether keypoints follow the box on each line.
    """
    # Without names, the classes are those of all splits together.
    numbered = cache(lambda: number_classes([images_of(split) for split in splits]))

    def read(split):
        return read_yolo(folder, images_of(split), numbered() if names is None else names, has_keypoints)

    return sources_of(folder, splits, read)


def find_yaml(folder, needed=("names", "train")):
    """Path and content of a yaml file with the keys `needed`, of which val can replace train; or None and {}."""
    names = with_extension(list_folder(folder), ".yaml", ".yml")
    usual = [name for name in names if stem_of(name) in ("data", "dataset")]
    for name in dict.fromkeys(usual + names):
        path = os.path.join(folder, name)
        try:
            check_file(path, MAX_YAML)
            with open(path, encoding="utf-8") as file:
                # Everything as text: a class may be called "no", or "1".
                config = yaml.load(file, yaml.BaseLoader)
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError, InputError) as error:
            if name in usual:
                raise InputError(f"{path}: not a yaml file ({first_line(error)})") from error
            continue
        if isinstance(config, dict):
            present = {key for key, value in config.items() if value}
            if "val" in present:
                present.add("train")
            if present.issuperset(needed):
                return path, config
    return None, {}


def class_names(names, path):
    """dict from the number of a class to its name, from the `names` of a yaml file: a list or a mapping.

    Raises:
        InputError: it is neither.
    """
    named = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        if not all(isinstance(name, str) for name in named.values()):
            raise TypeError
        return {int(number): name for number, name in sorted(named.items(), key=lambda pair: int(pair[0]))}
    except (AttributeError, ValueError, TypeError):
        raise InputError(f"{path}: 'names' must be a list of names, or numbers with names") from None


def names_from_file(folders):
    """dict from the number of a class to its name, from the first of NAME_FILES in the folders; None without one."""
    for folder in filter(None, folders):
        for name in NAME_FILES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return dict(enumerate(read_lines(path).values()))
    return None


def as_list(value):
    return value if isinstance(value, list) else [value]


def resolve(text, bases):
    """The first existing path from one of the bases, None without one.

    `../` at the beginning means the dataset's folder first, as Roboflow writes it, and its parent second.
    """
    if not isinstance(text, str):
        return None
    text = text.replace("\\", "/")
    within = text
    while within.startswith("../"):
        within = within[3:]
    for base in bases:
        for path in (within, text):
            path = os.path.normpath(os.path.join(base, path))
            if os.path.exists(path):
                return path
    return None


def images_in(folder):
    """Paths of the images in a folder and in the folders below it."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in with_extension(sorted(names), *EXTENSIONS)]
    return found


def images_listed(path, bases):
    """Paths of the images that a text file lists, relative to the first base that has the first image.

    Raises:
        InputError: the file is too large, or an image is outside of all bases.
    """
    lines = [line.replace("\\", "/") for line in read_lines(path).values()]
    having = [base for base in bases if lines and os.path.isfile(os.path.join(base, lines[0]))]
    base = having[0] if having else bases[-1]
    found = [os.path.normpath(os.path.join(base, line)) for line in lines]
    tops = tuple(os.path.join(os.path.abspath(base), "") for base in bases)
    outside = [image for image in found if not os.path.abspath(image).startswith(tops)]
    if outside:
        raise InputError(f"{path}: lists {outside[0]}, which is outside of the dataset's folder")
    return found


def label_folder(folder):
    """The folder of the label files of the images in `folder`: `labels` in place of the last `images`."""
    names = folder.split(os.sep)
    for i in reversed(range(len(names))):
        if names[i].lower() == "images":
            return os.sep.join([*names[:i], "labels", *names[i + 1 :]])
    return folder


def label_files(images):
    """Paths of the label files of images, None for those without one."""
    names_in = cache(lambda folder: set(list_folder(folder)))  # each folder is listed once
    files = []
    for path in images:
        folder, name = os.path.dirname(path), f"{stem_of(path)}.txt"
        places = [place for place in (label_folder(folder), folder) if name in names_in(place)]
        files.append(os.path.join(places[0], name) if places else None)
    return files


def number_classes(splits):
    """dict from number to itself as a name, up to the highest number in the label files of all splits' images."""
    highest = -1
    for images in splits:
        for path in filter(None, label_files(images)):
            for line in read_lines(path).values():
                try:
                    highest = max(highest, int(float(line.split()[0])))
                except (ValueError, OverflowError):
                    continue
    return {number: str(number) for number in range(min(highest, 10_000) + 1)}


def read_yolo(folder, paths, names, has_keypoints=False):
    """The `Content` of images and their label files; an image without a label file has no objects.

    Args:
        folder: folder of the dataset.
        paths: list of the images' paths.
        names: dict from the number of a class to its name.
        has_keypoints: as in `read_line`.
    """
    # A yaml file may name images anywhere; paths relative to the image folder must stay in it.
    top = os.path.join(os.path.abspath(folder), "")
    if not all(os.path.abspath(path).startswith(top) for path in paths):
        folder = os.path.commonpath([top, *map(os.path.abspath, paths)])
    builder = CocoBuilder(names)
    unreadable, malformed = [], []
    files = label_files(paths)
    for path, file in zip(paths, files, strict=True):
        try:
            width, height = upright_size(path)
        except FileNotFoundError:
            unreadable.append(f"{path}: the image is missing")
            continue
        except ValueError as error:
            unreadable.append(f"{path}: the image cannot be read ({first_line(error)})")
            continue
        builder.add_image(os.path.relpath(path, folder), width, height)
        for number, line in read_lines(file).items() if file else ():
            place = f"{os.path.relpath(file, folder)}, line {number}"
            try:
                label, (x, y, w, h) = read_line(line, has_keypoints)
            except ValueError as error:
                malformed.append(f"{place}: {error}")
                continue
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            builder.add_annotation(label, box, place)
    problems = problems_of("images that cannot be read", unreadable, len(paths))
    problems += problems_of("malformed lines", malformed, len(malformed) + len(builder.annotations))
    return Content(builder.coco, folder, problems + label_problems(folder, paths, files))


def label_problems(folder, images, files):
    """Images without any labels, and label files without an image.

    Args:
        images: list of paths.
        files: their label files, as `label_files` returns them.
    """
    used = set(filter(None, files))
    label_folders = {os.path.dirname(file) for file in used}
    image_folders = {os.path.dirname(path) for path in images}
    unlabeled = [] if used else sorted({f"{label_folder(place)}: no label file of an image" for place in image_folders})
    # Images of other splits may lie in the same folders.
    stems = {stem_of(name) for place in image_folders for name in with_extension(list_folder(place), *EXTENSIONS)}
    present = [os.path.join(place, name) for place in sorted(label_folders) for name in list_folder(place)]
    present = [path for path in with_extension(present, ".txt") if os.path.basename(path) not in NAME_FILES]
    alone = [os.path.relpath(path, folder) for path in present if path not in used and stem_of(path) not in stems]
    return [
        *problems_of("no labels at all", unlabeled, len(unlabeled)),
        *problems_of("label files without an image", alone, len(present)),
    ]


def read_line(line, has_keypoints=False):
    """Parse a line of a label file.

    Args:
        has_keypoints: whether keypoints follow the box; otherwise a line of many numbers is a polygon.

    Returns:
        class, and [x, y, width, height] of the box, x and y of its centre.

    Raises:
        ValueError: the line is malformed; says why.
    """
    got = f"got {line.strip()[:60]!r}"
    try:
        label, *numbers = map(float, line.split())
    except ValueError:
        raise ValueError(f"expected numbers, {got}") from None
    if not all(map(math.isfinite, (label, *numbers))) or label % 1:
        raise ValueError(f"expected a whole class number and finite numbers, {got}")
    if len(numbers) == 4 or (has_keypoints and len(numbers) > 4):
        box = numbers[:4]
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        box = [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]
    else:
        raise ValueError(f"expected class, x, y, width and height, or a polygon, {got}")
    # A box may extend a little beyond its image; one in pixels does so by far.
    if max(map(abs, box)) > 2:
        raise ValueError(f"expected fractions of the image's width and height, 0 to 1, {got}")
    return int(label), box
