"""YOLO's format: a text file an image, a line an object, in parts of the image's width and height."""

import math
import os
from functools import cache

import yaml

from ..errors import InputError, first_line
from .problems import problems_of
from .sources import (
    EXTENSIONS,
    MAX_TEXT,
    Content,
    Source,
    check_file,
    list_folder,
    part_folders,
    part_of,
    subfolder,
    upright_size,
    with_extension,
)  # fmt: skip

# Files that name the classes, a line each, where no yaml file does.
NAME_FILES = ("classes.txt", "obj.names")
# Bytes of a yaml file, which is slow to read: a hundred thousand names of classes.
MAX_YAML = 1 << 20


def find_yolo_yaml(folder):
    """Parts that a yaml file at the top of a folder names.

    Returns:
        dict from part to `Source`, empty where there is no such file.

    Raises:
        InputError: data.yaml or dataset.yaml cannot be read.
    """
    path, config = find_yaml(folder)
    if not path:
        return {}
    root = os.path.join(folder, config["path"]) if isinstance(config.get("path"), str) else folder
    values = {part_of(key): value for key, value in config.items() if part_of(key) and value}
    # Programs name a test part in every file, whether there is one or not.
    values = {part: v for part, v in values.items() if part != "test" or places(v, folder, root)[1] is None}

    def images_of(part):
        found, missing = places(values[part], folder, root)
        if missing:
            raise InputError(
                f"{path}: {part}: {missing} does not exist; correct the path, from the yaml file's folder on"
            )
        return found

    return sources(folder, images_of, list(values), class_names(config["names"], path), "kpt_shape" in config)


def find_yolo_folders(folder):
    """Parts of `images/<part>` and `labels/<part>`, of `<part>/images` and `<part>/labels`, or all as train.

    Returns:
        dict from part to `Source`, empty where the folder has no such parts.
    """
    images, labels = subfolder(folder, "images"), subfolder(folder, "labels")
    places = part_folders(images) if images and labels else {}
    if not places:
        inside = {p: (subfolder(f, "images"), subfolder(f, "labels")) for p, f in part_folders(folder).items()}
        places = {part: images for part, (images, labels) in inside.items() if images and labels}
    if not places and images and labels:
        places = {"train": images}
    if not places:
        return {}
    path, config = find_yaml(folder, ("names",))
    if path:
        names = class_names(config["names"], path)
    else:
        names = names_from_file([folder, labels, *map(label_folder, places.values())])
    return sources(folder, lambda part: images_in(places[part]), list(places), names, False)


def sources(folder, images_of, parts, names, has_keypoints):
    """dict from part to `Source`.

    Args:
        images_of: function from a part to the paths of its images.
        names: dict from a class's number to its name; None to name them by their numbers.
        has_keypoints: whether lines go on with points behind the box.
    """
    # Classes without names are those of all parts together.
    numbered = cache(lambda: number_classes(images_of(part) for part in parts))

    def read(part):
        return read_yolo(folder, images_of(part), numbered() if names is None else names, has_keypoints)

    return {part: Source(folder, lambda part=part: read(part), folder) for part in parts}


def find_yaml(folder, needed=("names", "train")):
    """Path and content of a yaml file with these keys, or val in the place of train; None and {} without."""
    names = with_extension(list_folder(folder), ".yaml", ".yml")
    usual = [name for name in names if os.path.splitext(name)[0] in ("data", "dataset")]
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
        if isinstance(config, dict) and all(
            config.get(key) or (key == "train" and config.get("val")) for key in needed
        ):
            return path, config
    return None, {}


def class_names(names, path):
    """dict from a class's number to its name, of the `names` of a yaml file: a list, or a mapping.

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
    """dict from a class's number to its name, of the first file that has them; None where there is none."""
    for folder in filter(None, folders):
        for name in NAME_FILES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                check_file(path, MAX_TEXT)
                with open(path, encoding="utf-8", errors="replace") as file:
                    return dict(enumerate(filter(None, map(str.strip, file))))
    return None


def places(value, folder, root):
    """Paths of the images that a yaml file names under a part: folders, or text files that list images.

    Returns:
        list of paths, and the first place that does not exist, None where all do.
    """
    found = []
    for text in value if isinstance(value, list) else [value]:
        path = resolve(text, [root, folder]) if isinstance(text, str) else None
        if path is None:
            return [], text if isinstance(text, str) else "what is no text"
        if os.path.isdir(path):
            found += images_in(path)
        elif path.lower().endswith(".txt"):
            found += images_listed(path, [os.path.dirname(path), root, folder])
        else:
            found.append(path)
    return found, None


def resolve(text, bases):
    """The path that exists, from one of the bases; `../` means the dataset's folder first, as with Roboflow."""
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
    """Paths of the images in a folder and the folders in it."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in with_extension(sorted(names), *EXTENSIONS)]
    return found


def images_listed(path, bases):
    """Paths of the images that a text file lists, from the first of the bases that has the first image.

    Raises:
        InputError: it is too large, or one of them is in none of the bases.
    """
    check_file(path, MAX_TEXT)
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip().replace("\\", "/") for line in file if line.strip()]
    first = [base for base in bases if lines and os.path.isfile(os.path.join(base, lines[0]))] or bases[-1:]
    found = [os.path.normpath(os.path.join(first[0], line)) for line in lines]
    tops = tuple(os.path.join(os.path.abspath(base), "") for base in bases)
    outside = [path for path in found if not os.path.abspath(path).startswith(tops)]
    if outside:
        raise InputError(f"{path}: lists {outside[0]}, which is outside of the dataset's folder")
    return found


def label_folder(folder):
    """The folder of the label files to the images in `folder`: `labels` in the place of the last `images`."""
    parts = folder.split(os.sep)
    for i in reversed(range(len(parts))):
        if parts[i].lower() == "images":
            return os.sep.join([*parts[:i], "labels", *parts[i + 1 :]])
    return folder


def label_files(images):
    """The paths of the label files to some images, None where there is none; each folder is listed once."""
    listed = {}
    files = []
    for path in images:
        folder, name = os.path.split(path)
        name = os.path.splitext(name)[0] + ".txt"
        found = None
        for place in (label_folder(folder), folder):
            if place not in listed:
                listed[place] = set(list_folder(place))
            if name in listed[place]:
                found = os.path.join(place, name)
                break
        files.append(found)
    return files


def number_classes(parts):
    """dict from number to itself as a name, up to the highest in the label files of all parts' images."""
    highest = -1
    for images in parts:
        for path in filter(None, label_files(images)):
            for _, line in lines_of(path):
                try:
                    highest = max(highest, int(float(line.split()[0])))
                except (ValueError, OverflowError):
                    continue
    return {number: str(number) for number in range(min(highest, 10_000) + 1)}


def lines_of(path):
    """The lines of a file that are not empty, with their numbers from 1.

    Raises:
        InputError: it is too large.
    """
    check_file(path, MAX_TEXT)
    with open(path, encoding="utf-8", errors="replace") as file:
        return [(number, line) for number, line in enumerate(file, 1) if line.strip()]


def read_yolo(folder, paths, names, has_keypoints=False):
    """Read the labels of some images.

    Args:
        folder: of the dataset.
        paths: list of paths.
        names: dict from a class's number to its name.
        has_keypoints: whether lines go on with points behind the box; otherwise a line of many numbers is a polygon.

    Returns:
        `Content`; an image without a label file has no objects.
    """
    images, annotations, unreadable, malformed = [], [], [], []
    # What a yaml file names may lie anywhere; names that start from the image folder lie in it.
    top = os.path.join(os.path.abspath(folder), "")
    if not all(os.path.abspath(path).startswith(top) for path in paths):
        folder = os.path.commonpath([top, *map(os.path.abspath, paths)])
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
        image_id = len(images)
        name = os.path.relpath(path, folder)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for number, line in lines_of(file) if file else []:
            place = f"{os.path.relpath(file, folder)}, line {number}"
            try:
                label, (x, y, w, h) = read_line(line, has_keypoints)
            except ValueError as error:
                malformed.append(f"{place}: {error}")
                continue
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": label, "bbox": box, "place": place}
            )
    coco = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
    }
    problems = problems_of(
        "error", "images that cannot be read", unreadable, len(paths), "images", "replace or remove them"
    )
    problems += problems_of(
        "error", "malformed lines", malformed, len(malformed) + len(annotations), "lines",
        "correct them: class, then centre, width and height in parts of the image's, or a polygon",
    )  # fmt: skip
    return Content(coco, folder, problems + label_problems(folder, paths, files))


def label_problems(folder, images, files):
    """Images without any labels, labels without an image."""
    used = set(files)
    places = sorted({os.path.dirname(file) for file in filter(None, used)})
    paths = [os.path.join(place, name) for place in places for name in with_extension(list_folder(place), ".txt")]
    paths = [path for path in paths if os.path.basename(path) not in NAME_FILES]
    # Images of other parts may lie in the same folders.
    there = [name for place in {os.path.dirname(path) for path in images} for name in list_folder(place)]
    stems = {os.path.splitext(name)[0] for name in with_extension(there, *EXTENSIONS)}
    left = [path for path in paths if path not in used and os.path.splitext(os.path.basename(path))[0] not in stems]
    nowhere = sorted({label_folder(os.path.dirname(path)) for path in images}) if images and not places else []
    return [
        *problems_of(
            "error", "no labels at all", [f"{place}: no label file of an image" for place in nowhere], len(nowhere),
            "folders", "put labels/ beside images/, a text file of the same name an image",
        ),
        *problems_of(
            "warning", "label files without an image", left, len(paths), "files", "add the images, or remove them",
            lambda path: os.path.relpath(path, folder),
        ),
    ]  # fmt: skip


def read_line(line, has_keypoints=False):
    """A line of a label file -> class, and [x, y, width, height] of the box, x and y of its centre.

    Raises:
        ValueError: says what is wrong with it.
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
    # A box may reach out of its image a little; one in pixels does by far.
    if max(map(abs, box)) > 2:
        raise ValueError(f"expected parts of the image's width and height, 0 to 1, {got}")
    return int(label), box
