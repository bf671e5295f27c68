"""What becomes of objects that augmentation cuts."""

import numpy as np
from detectron2.structures import BoxMode

# Share of an object's box that must stay in the image. What is left of an object below it says too little to be
# learned, and too much to be background.
MIN_VISIBLE = 0.1


def follow(annotations, transforms, shape):
    """The annotations of a transformed image: boxes clipped to its shape (height, width), none of them empty.

    Objects of which less than MIN_VISIBLE is left become crowd regions, which MODEL.ATSS.IGNORE_CROWD excludes from the
    loss; objects and crowd regions of which nothing is left are dropped.
    """
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
    has_sides = [annotation["bbox_mode"] == BoxMode.XYWH_ABS for annotation in annotations]
    boxes[has_sides, 2:] += boxes[has_sides, :2]
    moved = transforms.apply_box(boxes)
    left = np.clip(moved, 0, [*shape[::-1], *shape[::-1]])
    sides, whole = left[:, 2:] - left[:, :2], (moved[:, 2:] - moved[:, :2]).prod(1)
    is_cut = sides.prod(1) < MIN_VISIBLE * whole
    followed = []
    for annotation, box, cut in zip(annotations, np.hstack([left[:, :2], sides]).tolist(), is_cut, strict=True):
        if min(box[2:]) > 0:
            crowd = int(cut or bool(annotation.get("iscrowd")))
            kept = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": annotation["category_id"]}
            followed.append({**kept, "iscrowd": crowd})
    return followed
