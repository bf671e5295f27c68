"""Finds images by paths that were written on another computer."""

import os
import re
from collections import Counter, defaultdict
from functools import cache
from itertools import islice

from .problems import problems_of, quoted
from .sources import list_folder, split_of

DRIVE = re.compile("[a-zA-Z]:/")
# Characters of a path that systems open, at most.
LONGEST = 4096


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
    """Those of the files of a path's name, all paths with slashes, that can be its image: two of them at most.

    `files` is a dict, or another collection that is fast to look into: thousands of folders may have the same name in
    them.
    """
    parts = parts_of(path)
    splits = splits_in(parts)

    def fits(file):
        return not splits or splits_in(file.split("/")) <= splits

    end, longest = parts[-1], None
    for part in parts[-2::-1]:
        end = f"{part}/{end}"
        if len(end) > LONGEST:
            break
        if end in files and fits(end):
            longest = end
    return [longest] if longest else list(islice(filter(fits, files), 2))


def splits_in(parts):
    """The splits that the folders of a path name."""
    return {split_of(part) for part in parts[:-1]} - {None}


def files_named(names, folder):
    """dict from those of a set of file names that are in a folder or its subfolders to their paths from it.

    The paths have slashes, and are the keys of a dict, in order.
    """
    found = defaultdict(dict)
    for place, folders, files in os.walk(folder or "."):
        folders.sort()
        for name in names.intersection(files):
            found[name][os.path.relpath(os.path.join(place, name), folder or ".").replace(os.sep, "/")] = None
    return found
