"""YOLO format: one text file per image, one line per object, in fractions of the image's width and height."""

import math
import os
import re
from functools import cache, partial

import yaml

from ..errors import InputError, first_line
from . import sources
from .image_io import upright_size
from .image_paths import locate_images, parts_of, with_slashes
from .problems import errors_of, problems_of, quoted

# Files with one class name per line, used if no yaml file has the names.
NAME_FILES = ("classes.txt", "obj.names")
# Maximum bytes of a yaml file, which is slow to parse: names of a hundred thousand classes.
MAX_YAML = 1 << 20


def find_yolo_yaml(folder):
    """dict from the splits that a yaml file at the top of a folder names to `Source`, empty if there is no such file.

    Raises InputError if data.yaml or dataset.yaml cannot be read.
    """
    path, config = find_yaml(folder, ("names", "train"))
    if not path:
        return {}
    root = os.path.join(folder, config["path"]) if isinstance(config.get("path"), str) else folder
    bases = [root, folder]
    entries = {}
    for key, value in config.items():
        if sources.split_of(key) and value:
            entries[sources.split_of(key)] = value if isinstance(value, list) else [value]
    # Programs name a test split in every file, whether there is one or not.
    if not all(resolve(entry, bases) or end_in(entry, folder) for entry in entries.get("test", ())):
        del entries["test"]

    def images_of(split):
        found, problems, moved = [], [], []
        for entry in entries[split]:
            place = resolve(entry, bases)
            if not place and (place := end_in(entry, folder)):
                moved.append(f"{quoted(entry)} is {place}")
            if not place:
                what = f"{quoted(entry)} does not exist" if isinstance(entry, str) else "an entry is not a path"
                raise InputError(f"{path}: {split}: {what}; correct it: paths start from the yaml file's folder")
            if os.path.isdir(place):
                found += images_in(place)
            elif place.lower().endswith(".txt"):
                listed, others = images_listed(place, [os.path.dirname(place), *bases])
                found, problems = found + listed, problems + others
            else:
                found.append(place)
        return found, problems + problems_of("folders found by their names", moved, len(entries[split]))

    return yolo_sources(folder, entries, images_of, class_names(config["names"], path), "kpt_shape" in config)


def find_yolo_folders(folder):
    """dict from split to `Source`, empty if there are none.

    Splits are in `images/<split>` and `labels/<split>`, or `<split>/images` and `<split>/labels`, or "train" alone.
    """
    images, labels = sources.subfolder(folder, "images"), sources.subfolder(folder, "labels")
    places = sources.split_folders(images) if labels else {}
    if not places:
        for split, place in sources.split_folders(folder).items():
            if sources.subfolder(place, "images") and sources.subfolder(place, "labels"):
                places[split] = sources.subfolder(place, "images")
    if not places and images and labels:
        places = {"train": images}
    if not places:
        return {}
    path, config = find_yaml(folder, ("names",))
    if path:
        names = class_names(config["names"], path)
    else:
        inside = filter(None, (folder, labels, *map(label_folder, places.values())))
        files = [os.path.join(place, name) for place in inside for name in NAME_FILES]
        found = next(filter(os.path.isfile, files), None)
        names = dict(enumerate(sources.read_lines(found).values())) if found else None
    return yolo_sources(folder, places, lambda split: (images_in(places[split]), []), names)


def yolo_sources(folder, splits, images_of, names, has_keypoints=False):
    """dict from split to `Source`; `images_of` returns the paths of the images of a split, and a list of `Problem`.

    Without `names`, a dict from class number to name, the numbers in the label files of all splits are the names.
    """
    numbered = cache(lambda: number_classes([path for split in splits for path in images_of(split)[0]]))

    def read(split):
        paths, problems = images_of(split)
        content = read_yolo(folder, paths, numbered() if names is None else names, has_keypoints)
        return content._replace(problems=problems + content.problems)

    return {split: sources.Source(folder, partial(read, split), folder) for split in splits}


def find_yaml(folder, needed):
    """Path and content of a yaml file with the keys `needed`, of which val can replace train; (None, None) without one.

    Raises InputError if data.yaml or dataset.yaml cannot be read; other files are skipped.
    """
    names = sources.list_folder(folder, ".yaml", ".yml")
    usual = [name for name in names if sources.stem_of(name) in ("data", "dataset")]
    for name in dict.fromkeys(usual + names):
        path = os.path.join(folder, name)
        try:
            sources.check_file(path, MAX_YAML)
            with open(path, encoding=sources.encoding_of(path)) as file:
                config = yaml.load(file, yaml.BaseLoader)  # all values are text: a class may be called "no", or "1"
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError, InputError) as error:
            if name in usual:
                raise InputError(f"{path}: not a yaml file ({first_line(error)})") from error
            continue
        if isinstance(config, dict):
            present = {"train" if key == "val" else key for key, value in config.items() if value}
            if present.issuperset(needed):
                return path, config
    return None, None


def class_names(names, path):
    """dict from class number to name; raises InputError if the `names` of a yaml file are neither list nor mapping."""
    named = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        if not all(isinstance(name, str) for name in named.values()):
            raise TypeError
        return dict(sorted((int(number), name) for number, name in named.items()))
    except (AttributeError, ValueError, TypeError):
        raise InputError(f"{path}: 'names' must be a list of names, or numbers with names") from None


def resolve(text, bases):
    """The first path from one of the bases that exists, or None.

    A leading `../` means the dataset's folder, as in Roboflow's files, or else its parent.
    """
    if not isinstance(text, str):
        return None
    within = text = with_slashes(text)
    while within.startswith("../"):
        within = within[3:]
    paths = [os.path.normpath(os.path.join(base, path)) for base in bases for path in (within, text)]
    return next(filter(os.path.exists, paths), None)


def end_in(text, folder):
    """The longest end of a path of another computer that exists in a folder, or None.

    What is left out names no split: the end could be the images of another one.
    """
    parts = parts_of(text) if isinstance(text, str) else []
    for start in range(1, len(parts)):
        if sources.split_of(parts[start - 1]):
            return None
        path = os.path.join(folder, *parts[start:])
        if os.path.exists(path):
            return path
    return None


def images_in(folder):
    """Paths of the images in a folder and its subfolders."""
    found = []
    for place, folders, _ in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in sources.list_folder(place, *sources.EXTENSIONS)]
    return found


def images_listed(path, bases):
    """Paths of the images that a text file lists, and a list of `Problem`.

    They are relative to the first base that contains the first image; those that are not in a base are looked for in
    the last one. Raises InputError if the file is too large, or an image is outside of all bases.
    """
    lines = list(map(with_slashes, sources.read_lines(path).values()))
    having = [base for base in bases if lines and os.path.isfile(os.path.join(base, lines[0]))]
    base = having[0] if having else bases[-1]
    found = {line: os.path.normpath(os.path.join(base, line)) for line in lines}
    tops = tuple(os.path.join(os.path.abspath(base), "") for base in bases)
    is_inside = {line: os.path.abspath(image).startswith(tops) for line, image in found.items()}
    lost = [line for line, image in found.items() if not (is_inside[line] and os.path.isfile(image))]
    taken = [os.path.relpath(found[line], bases[-1]) for line in found.keys() - lost]
    moved, problems = locate_images(lost, bases[-1], taken)
    for problem in errors_of(problems):
        raise InputError(f"{path}: lists {problem.examples[0]} ({problem.extent()}); {problem.remedy}")
    found |= {line: os.path.join(bases[-1], image) for line, image in moved.items()}
    for line, image in found.items():
        if not is_inside[line] and line not in moved:
            raise InputError(f"{path}: lists {quoted(image)}, which is outside of the dataset's folder")
    return [found[line] for line in lines], problems


def label_folder(folder):
    """The folder of the label files of the images in `folder`: `labels` in place of the last `images`."""
    return re.sub(r"^(.*/)?images(?=/|\Z)", r"\1labels", folder, count=1, flags=re.IGNORECASE | re.DOTALL)


def label_files(images):
    """Paths of the label files of images, None for images without one."""
    names_in = cache(lambda folder: set(sources.list_folder(folder)))  # lists each folder once
    files = []
    for path in images:
        folder, name = os.path.dirname(path), f"{sources.stem_of(path)}.txt"
        places = [place for place in (label_folder(folder), folder) if name in names_in(place)]
        files.append(os.path.join(places[0], name) if places else None)
    return files


def number_classes(images):
    """dict from number to the same number as name, up to the highest class number in the label files of the images."""
    highest = -1
    for path in filter(None, label_files(images)):
        for line in sources.read_lines(path).values():
            try:
                highest = max(highest, int(float(line.split()[0])))
            except (ValueError, OverflowError):
                continue
    return {number: str(number) for number in range(min(highest, 10_000) + 1)}


def read_yolo(folder, paths, names, has_keypoints):
    """The `Content` of images and their label files; an image without a label file has no objects."""
    # A yaml file may name images anywhere, but the names of images must not lead out of the image folder.
    top = os.path.join(os.path.abspath(folder), "")
    if not all(os.path.abspath(path).startswith(top) for path in paths):
        folder = os.path.commonpath([top, *map(os.path.abspath, paths)])
    images, unreadable, malformed, num_lines = [], [], [], 0
    files = label_files(paths)
    for path, file in zip(paths, files, strict=True):
        try:
            width, height = upright_size(path)
        except InputError as error:
            unreadable.append(str(error))
            continue
        objects = []
        for number, line in sources.read_lines(file).items() if file else ():
            place = f"{os.path.relpath(file, folder)}, line {number}"
            num_lines += 1
            try:
                label, (x, y, w, h) = read_line(line, has_keypoints)
            except ValueError as error:
                malformed.append(f"{place}: {error}")
                continue
            objects.append((label, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], place))
        images.append((os.path.relpath(path, folder), width, height, objects))
    problems = problems_of("images that cannot be read", unreadable, len(paths))
    problems += problems_of("malformed lines", malformed, num_lines) + label_problems(folder, paths, files)
    return sources.Content(sources.coco_content(names, images), folder, problems)


def label_problems(folder, images, files):
    """Find image folders without any labels, and label files (see `label_files`) without an image."""
    used = set(filter(None, files))
    image_folders = {os.path.dirname(path) for path in images}
    unlabeled = [] if used else sorted({f"{label_folder(place)}: no label file of an image" for place in image_folders})
    # The images of other splits may be in the same folders.
    names = (name for place in image_folders for name in sources.list_folder(place, *sources.EXTENSIONS))
    stems = set(map(sources.stem_of, names))
    places = sorted({os.path.dirname(file) for file in used})
    present = [os.path.join(place, name) for place in places for name in sources.list_folder(place, ".txt")]
    present = [path for path in present if os.path.basename(path) not in NAME_FILES]
    alone = [path for path in present if path not in used and sources.stem_of(path) not in stems]
    alone = [os.path.relpath(path, folder) for path in alone]
    return [
        *problems_of("no labels at all", unlabeled, len(unlabeled)),
        *problems_of("label files without an image", alone, len(present)),
    ]


def read_line(line, has_keypoints):
    """Class number of a line of a label file, and [x, y, width, height] of the box, where x and y are its centre.

    A line of many numbers is a polygon, unless keypoints follow the box. Raises ValueError, with the reason, if the
    line is malformed.
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
