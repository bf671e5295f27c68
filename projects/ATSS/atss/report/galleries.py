"""The worst errors of each kind as images."""

import os

import numpy as np

from ..errors import InputError
from .figures import Card
from .images import draw_error
from .outcomes import DUPLICATE_OTHER, FALSE_POSITIVE, MISLOCALIZED, MISSED, NEAR, SAME, WRONG_CLASS
from .words import omitted

GALLERY_SIZE = 8  # images of each kind of error


def error_galleries(analysis, folder):
    """Return a dict for each kind of error: `title`, `text`, `count` of all, `cards` of the worst, and a `note`."""
    (objects, detections), (kind, object_, iou, state) = analysis.boxes, analysis.outcomes
    classes, score = np.array(analysis.dataset.classes), detections["score"]
    found, truth = classes[detections["category"]], classes[objects["category"]]

    def worst(errors, better=False):
        """Errors, indices of detections, as pairs with their box: the highest score first, `better` ones last."""
        order = first_of_images(errors, detections["image"], -score + 10 * better)
        return np.stack([order, object_[order]], axis=1)

    missed = first_of_images(np.flatnonzero(state == MISSED), objects["image"], -objects["box"][:, 2:].prod(axis=1))
    missed = np.stack([np.full_like(missed, -1), missed], axis=1)
    false_positives = worst(np.flatnonzero(kind == FALSE_POSITIVE))
    # The error is worse where no better detection matches the ground truth.
    has_better = (state[object_] != MISLOCALIZED) if len(state) else np.zeros(len(kind), bool)
    mislocalized = worst(np.flatnonzero(kind == MISLOCALIZED), has_better)
    confused = worst(np.flatnonzero((kind == WRONG_CLASS) | (kind == DUPLICATE_OTHER)), kind == DUPLICATE_OTHER)
    kinds = (
        ("Missed objects", "missed", missed,
         lambda d, g: f"{truth[g]}, {objects['box'][g, 2]:.0f} x {objects['box'][g, 3]:.0f} pixels",
         f"No detection of their class reaches an IoU of {NEAR}, none of another class {SAME}; largest first."),
        ("False positives", "false_positive", false_positives,
         lambda d, g: f"{found[d]} {score[d]:.2f}",
         f"No object reaches an IoU of {NEAR}; highest score first. An annotation may be missing."),
        ("Mislocalized", "mislocalized", mislocalized,
         lambda d, g: f"{found[d]} {score[d]:.2f}, IoU {iou[d]:.2f}",
         f"The class is right, the IoU between {NEAR} and {SAME}; first those without a better detection."),
        ("Wrong class", "wrong_class", confused,
         lambda d, g: f"{truth[g]} detected as {found[d]} {score[d]:.2f}",
         f"The IoU with an object of another class is at least {SAME}; first those whose object has no correct "
         "detection, then those beside a correct one."),
    )  # fmt: skip
    galleries = []
    for title, name, pairs, line_of, text in kinds:
        cards, unreadable = [], []
        for d, g in pairs[:GALLERY_SIZE].tolist():
            try:
                path, drawn = draw_error(analysis.dataset, analysis.boxes, d, g)
            except InputError as error:
                unreadable.append(error)
                continue
            line = line_of(d, g)
            image = folder.photo(f"{name}_{len(cards) + 1}", f"{title}: {line}", drawn)
            cards.append(Card([image], lines=(line, os.path.basename(path))))
        count, note = f"{len(pairs):,}", omitted(unreadable)
        galleries.append({"title": title, "text": text, "count": count, "cards": cards, "note": note})
    return galleries


def first_of_images(places, images, rank):
    """Sort indices (n,) by their rank, but the first of each image before the second of each image, and so on."""
    order = places[np.lexsort((rank[places], images[places]))]
    turn = np.arange(len(order)) - np.searchsorted(images[order], images[order])
    return order[np.lexsort((rank[order], turn))]
