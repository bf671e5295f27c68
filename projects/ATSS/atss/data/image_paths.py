"""Finds images by paths that were written on another computer."""

import os
import re
from collections import Counter, defaultdict
from functools import cache

from .problems import problems_of, quoted
from .sources import list_folder, split_of

DRIVE = re.compile("[a-zA-Z]:/")


def with_slashes(path):
    return path.replace("\\", "/")


def stays_inside(path):
    """Whether a path of any operating system stays in the folder that it is relative to."""
    path = with_slashes(path)
    return not (path.startswith("/") or DRIVE.match(path) or ".." in path.split("/"))


def parts_of(path):
    """The names in a path of any operating system."""
    return [part for part in with_slashes(path).split("/") if part not in ("", ".", "..")]


def locate_images(paths, folder, taken=()):
    """Find images in a folder by their paths, a list of texts; `taken` are those of others, which start from it.

    A path is used as it is if there is such a file, else with slashes for its backslashes. If that does not help, the
    image is the one at the longest end of the path, of two names or more, else the only one of its name in the folder
    and its subfolders. It must not be of another split than the path says, nor the image of another path.

    Returns a dict from those paths that are not used as they are to the paths of their images, which start from the
    folder and stay in it; and a list of `Problem`.
    """
    names_in = cache(lambda place: set(list_folder(os.path.join(folder, place) or ".")))

    def is_there(path):
        return stays_inside(path) and os.path.basename(path) in names_in(os.path.dirname(path))

    paths = list(dict.fromkeys(paths))
    written = {path: path if is_there(path) else with_slashes(path) for path in paths}
    there = {path: other for path, other in written.items() if is_there(other)}
    names = {path: parts_of(path)[-1] for path in paths if path not in there and parts_of(path)}
    files = files_named(set(names.values()), folder) if names else {}
    fitting = {path: candidates(path, files.get(name, ())) for path, name in names.items()}
    taken = Counter([*taken, *map(os.path.normpath, there.values())])
    taken.update(files[0] for files in fitting.values() if len(files) == 1)
    found = {path: files[0] for path, files in fitting.items() if len(files) == 1 and taken[files[0]] == 1}
    unclear = [path for path, files in fitting.items() if files and path not in found]
    slashed = {path: other for path, other in there.items() if path != other}
    moved = {**slashed, **found}

    def says(path):
        return f"{quoted(path)} is {quoted(moved[path])}"

    def asks(path):
        files = " or ".join(map(quoted, fitting[path][:2]))
        return f"{quoted(path)} could be {files}" + (", as another path" if len(fitting[path]) == 1 else "")

    return moved, [
        *problems_of("file names with backslashes", list(slashed), len(paths), says),
        *problems_of("images found by their names", list(found), len(paths), says),
        *problems_of("images that cannot be told apart", unclear, len(paths), asks),
    ]


def candidates(path, files):
    """Those of the files of a path's name, all paths with slashes, that can be its image."""
    parts = parts_of(path)
    splits = splits_in(parts)
    files = [file for file in files if not splits or splits_in(file.split("/")) <= splits]
    ends = [file for file in files if "/" in file and file.split("/") == parts[-file.count("/") - 1 :]]
    return [max(ends, key=len)] if ends else files


def splits_in(parts):
    """The splits that the folders of a path name."""
    return {split_of(part) for part in parts[:-1]} - {None}


def files_named(names, folder):
    """dict from those of a set of file names that are in a folder or its subfolders to paths from it, with slashes."""
    found = defaultdict(list)
    for place, folders, files in os.walk(folder or "."):
        folders.sort()
        for name in names.intersection(files):
            found[name].append(os.path.relpath(os.path.join(place, name), folder or ".").replace(os.sep, "/"))
    return found
