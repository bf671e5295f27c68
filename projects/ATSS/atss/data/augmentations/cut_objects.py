"""What becomes of objects that augmentation cuts."""

import numpy as np
from detectron2.data import transforms as T
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
    visible = np.ones(len(boxes))
    for transform in T.TransformList([transforms]).transforms:
        boxes = transform.apply_box(boxes)
        if isinstance(transform, T.CropTransform):  # what a crop cuts off must not come back by a rotation
            boxes, share = clipped(boxes, (transform.h, transform.w))
            visible *= share
    boxes, share = clipped(boxes, shape)
    visible *= share
    boxes[:, 2:] -= boxes[:, :2]
    followed = []
    for annotation, box, is_cut in zip(annotations, boxes.tolist(), visible < MIN_VISIBLE, strict=True):
        if min(box[2:]) > 0:
            crowd = int(is_cut or bool(annotation.get("iscrowd")))
            kept = {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": annotation["category_id"]}
            followed.append({**kept, "iscrowd": crowd})
    return followed


def clipped(boxes, shape):
    """Boxes (K, 4), x1 y1 x2 y2, clipped to a shape (height, width), and the share of the area of each that is left."""
    inside = boxes.clip(0, [*shape[::-1], *shape[::-1]])
    return inside, area(inside) / area(boxes).clip(min=np.finfo(float).tiny)


def area(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
