"""The worst errors of every kind as images."""

import os
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .figures import Shown, slug
from .images import draw_error
from .outcomes import DUPLICATE_OTHER, FALSE_POSITIVE, MISLOCALIZED, MISSED, NEAR, SAME, WRONG_CLASS
from .words import counted

# Images of each kind.
GALLERY_SIZE = 8


class Gallery(NamedTuple):
    """Errors of a kind: how many there are, a description, the worst, and a line about what is omitted."""

    title: str
    count: str
    text: str
    shown: list
    note: str


def error_galleries(analysis, folder, prefix):
    """A `Gallery` for each kind of error; its images go into an `ImageFolder`, with a prefix to their names."""
    (objects, detections), (kind, object_, iou, state) = analysis.boxes, analysis.outcomes
    names = analysis.dataset.classes
    score, size = detections["score"], objects["box"][:, 2] * objects["box"][:, 3]

    def of_detection(d):
        return f"{names[detections['category'][d]]} {score[d]:.2f}"

    def of_object(g):
        return names[objects["category"][g]]

    missed = first_of_images(np.flatnonzero(state == MISSED), objects["image"], -size)
    false = first_of_images(np.flatnonzero(kind == FALSE_POSITIVE), detections["image"], -score)
    # The error is worse where no better detection matches the ground truth.
    has_better = (state[object_] != MISLOCALIZED) if len(state) else np.zeros(len(kind), bool)
    misplaced = first_of_images(np.flatnonzero(kind == MISLOCALIZED), detections["image"], -score + 10 * has_better)
    confused = np.flatnonzero((kind == WRONG_CLASS) | (kind == DUPLICATE_OTHER))
    confused = first_of_images(confused, detections["image"], -score + 10 * (kind == DUPLICATE_OTHER))
    galleries = (
        ("Missed objects", "missed", missed, lambda g: (-1, g),
         lambda g: f"{of_object(g)}, {objects['box'][g, 2]:.0f} x {objects['box'][g, 3]:.0f} pixels",
         f"No detection of their class reaches an IoU of {NEAR}, none of another class {SAME}; largest first."),
        ("False positives", "false_positive", false, lambda d: (d, -1), of_detection,
         f"No object reaches an IoU of {NEAR}; highest score first. An annotation may be missing."),
        ("Mislocalized", "mislocalized", misplaced, lambda d: (d, object_[d]),
         lambda d: f"{of_detection(d)}, IoU {iou[d]:.2f}",
         f"The class is right, the IoU between {NEAR} and {SAME}; first those without a better detection."),
        ("Wrong class", "wrong_class", confused, lambda d: (d, object_[d]),
         lambda d: f"{of_object(object_[d])} detected as {of_detection(d)}",
         f"The IoU with an object of another class is at least {SAME}; first those whose object has no correct "
         "detection, then those beside a correct one."),
    )  # fmt: skip
    return [
        error_gallery(analysis, folder, title, slug(name, prefix), places, boxes_of, line_of, text)
        for title, name, places, boxes_of, line_of, text in galleries
    ]


def first_of_images(places, images, rank):
    """Places (n,) in order of their rank, but first the first of every image, then all second ones, and so on."""
    order = places[np.lexsort((rank[places], images[places]))]
    turn = np.arange(len(order)) - np.searchsorted(images[order], images[order])
    return order[np.lexsort((rank[order], turn))]


def error_gallery(analysis, folder, title, name, places, boxes_of, line_of, text):
    shown, unreadable = [], []
    for place in places[:GALLERY_SIZE]:
        detection, object_ = boxes_of(place)
        rows, at = (analysis.boxes.detections, detection) if detection >= 0 else (analysis.boxes.objects, object_)
        path = analysis.dataset.files[rows["image"][at]]
        try:
            drawn = draw_error(analysis.dataset, analysis.boxes, detection, object_)
        except InputError as error:
            unreadable.append(str(error))
            continue
        line = line_of(place)
        image = folder.photograph(f"{name}_{len(shown) + 1}", f"{title}: {line}", drawn)
        shown.append(Shown([image], lines=(line, os.path.basename(path))))
    note = f"{counted(len(unreadable), 'image')} omitted: {unreadable[0]}." if unreadable else ""
    return Gallery(title, f"{len(places):,}", text, shown, note)
