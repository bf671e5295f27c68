"""The worst mistakes of every kind as images."""

import os
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .folder import Shown, slug
from .images import draw_mistake
from .mistakes import BADLY_PLACED, CONFUSED, FALSE_FIND, MISSED, NEAR, SAME, SECOND_CLASS
from .words import counted

# Images of each kind.
MISTAKES = 8


class Gallery(NamedTuple):
    """Mistakes of a kind: how many there are, what they are, the worst, and a line about what is left out."""

    title: str
    count: str
    text: str
    shown: list
    note: str


def tell_mistakes(findings, folder, prefix):
    """A `Gallery` a kind of mistake; its images go into a `ImageFolder`, with a prefix to their names."""
    (objects, detections), (kind, object_, iou, state) = findings.boxes, findings.verdict
    names = findings.dataset.classes
    score, size = detections["score"], objects["box"][:, 2] * objects["box"][:, 3]

    def of_detection(d):
        return f"{names[detections['category'][d]]} {score[d]:.2f}"

    def of_object(g):
        return names[objects["category"][g]]

    missed = first_of_images(np.flatnonzero(state == MISSED), objects["image"], -size)
    false = first_of_images(np.flatnonzero(kind == FALSE_FIND), detections["image"], -score)
    # Of an object that no better detection has, the mistake is the graver.
    has_better = (state[object_] != BADLY_PLACED) if len(state) else np.zeros(len(kind), bool)
    misplaced = first_of_images(np.flatnonzero(kind == BADLY_PLACED), detections["image"], -score + 10 * has_better)
    confused = np.flatnonzero((kind == CONFUSED) | (kind == SECOND_CLASS))
    confused = first_of_images(confused, detections["image"], -score + 10 * (kind == SECOND_CLASS))
    galleries = (
        ("Missed objects", "missed", missed, lambda g: (-1, g),
         lambda g: f"{of_object(g)}, {objects['box'][g, 2]:.0f} x {objects['box'][g, 3]:.0f} pixels",
         f"Nothing of their class overlaps them by an IoU of {NEAR}, nothing of another by {SAME}; largest first."),
        ("False finds", "false_find", false, lambda d: (d, -1), of_detection,
         f"No object overlaps them by an IoU of {NEAR}; highest score first. A label may be missing."),
        ("Badly placed", "badly_placed", misplaced, lambda d: (d, object_[d]),
         lambda d: f"{of_detection(d)}, IoU {iou[d]:.2f}",
         f"The class is right, the IoU between {NEAR} and {SAME}; first those whose object nothing else finds."),
        ("Wrong class", "wrong_class", confused, lambda d: (d, object_[d]),
         lambda d: f"{of_object(object_[d])} taken for {of_detection(d)}",
         f"An object of another class overlaps them by an IoU of {SAME}; first those whose object has no right "
         "detection, then those that are a second class beside the right one."),
    )  # fmt: skip
    return [
        tell_kind(findings, folder, title, slug(name, prefix), places, boxes_of, line_of, text)
        for title, name, places, boxes_of, line_of, text in galleries
    ]


def first_of_images(places, images, rank):
    """Places (n,) in order of their rank, but first the first of every image, then all second ones, and so on."""
    order = places[np.lexsort((rank[places], images[places]))]
    turn = np.arange(len(order)) - np.searchsorted(images[order], images[order])
    return order[np.lexsort((rank[order], turn))]


def tell_kind(findings, folder, title, name, places, boxes_of, line_of, text):
    shown, unreadable = [], []
    for place in places[:MISTAKES]:
        detection, object_ = boxes_of(place)
        rows, at = (findings.boxes.detections, detection) if detection >= 0 else (findings.boxes.objects, object_)
        path = findings.dataset.files[rows["image"][at]]
        try:
            drawn = draw_mistake(findings.dataset, findings.boxes, detection, object_)
        except InputError as error:
            unreadable.append(str(error))
            continue
        line = line_of(place)
        image = folder.photograph(f"{name}_{len(shown) + 1}", f"{title}: {line}", drawn)
        shown.append(Shown([image], lines=(line, os.path.basename(path))))
    note = f"{counted(len(unreadable), 'image')} left out: {unreadable[0]}." if unreadable else ""
    return Gallery(title, f"{len(places):,}", text, shown, note)
