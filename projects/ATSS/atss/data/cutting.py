"""Cuts the images of a dataset into tiles, with their boxes, in COCO format."""

import json
import os
import re
import shutil
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .image_io import MAX_PIXELS, open_image, to_rgb
from .tiles import tiles_of

# Characters of an image's name that the names of its tiles keep, and how many of them.
UNSAFE, LONGEST_NAME = re.compile(r"[^A-Za-z0-9.-]+"), 80


@dataclass
class Counts:
    """What was cut, and what was made of it."""

    images: int = 0
    tiles: int = 0
    empty: int = 0  # tiles without objects, also those that are left out
    objects: int = 0
    regions: int = 0  # crowd regions


class Cutter:
    """Cuts images into tiles, one after the other: no more than one image is in memory.

    Args:
        size, overlap: see `tiles_of`.
        min_visible: least share of a box's area that is inside of a tile for the box to stay an object there, more than
            0 and 1 at most. What is left of other boxes becomes a crowd region: in training with
            MODEL.ATSS.IGNORE_CROWD it is neither object nor background, without it Detectron2 leaves it out, and COCO's
            evaluation counts what is found there neither as right nor as wrong.
        keep_empty: False to leave out tiles without objects.
        quality: of JPEG files, from 1 to 100. Tiles of JPEG files are JPEG files, all others are PNG files.
        max_pixels: maximum number of pixels of an image.
    """

    def __init__(self, size, overlap, min_visible=0.5, keep_empty=True, quality=95, max_pixels=MAX_PIXELS):
        self.size = size
        self.overlap = overlap
        self.min_visible = min_visible
        self.keep_empty = keep_empty
        self.quality = quality
        self.max_pixels = max_pixels

    def cut(self, dicts, category_ids, folder):
        """Write the tiles of images to a folder, and yield their entries in COCO format as they are written.

        Args:
            dicts: images in Detectron2's standard form, with boxes of mode XYWH_ABS.
            category_ids: list of the category id of each class.
            folder: path of an existing folder.

        Yields:
            The number of the image in `dicts`, an entry of the list of images, without id, and its annotations, without
            ids and `image_id`; the entry is None for a tile that was left out.

        Raises:
            InputError: an image cannot be read, or does not have the size of its dict.
        """
        for number, record in enumerate(dicts):
            with open_image(record["file_name"], self.max_pixels) as file:
                extension, options = (".jpg", {"quality": self.quality, "subsampling": 0})
                if file.format != "JPEG":
                    extension, options = ".png", {}
                image = to_rgb(file)
            if image.size != (record["width"], record["height"]):
                raise InputError(
                    f"{record['file_name']}: the image has {image.width} x {image.height} pixels, not "
                    f"{record['width']} x {record['height']}; correct width and height in the annotation file"
                )
            stem = UNSAFE.sub("_", os.path.splitext(os.path.basename(record["file_name"]))[0])[:LONGEST_NAME]
            for tile in tiles_of(image.height, image.width, self.size, self.overlap):
                annotations = self.annotations_in(tile, record, category_ids)
                entry = None
                if self.keep_empty or not all(annotation["iscrowd"] for annotation in annotations):
                    name = f"{number:06d}_{stem}_{tile.x1}_{tile.y1}{extension}"
                    image.crop((tile.x1, tile.y1, tile.x2, tile.y2)).save(os.path.join(folder, name), **options)
                    entry = {"file_name": name, "width": tile.x2 - tile.x1, "height": tile.y2 - tile.y1}
                yield number, entry, annotations

    def annotations_in(self, tile, record, category_ids):
        """The annotations of an image's dict that are visible in a tile, as `cut` yields them.

        Boxes end where the image ends, and then where the tile does.
        """
        annotations = record["annotations"]
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clip(0, [record["width"], record["height"]] * 2)
        cut = boxes.clip([tile.x1, tile.y1] * 2, [tile.x2, tile.y2] * 2)
        sides, cut_sides = (b[:, 2:] - b[:, :2] for b in (boxes, cut))
        area, cut_area = sides.prod(1), cut_sides.prod(1)
        whole = (cut == boxes).all(1)
        found = []
        for i in np.flatnonzero((cut_area > 0) & (whole | (cut_sides >= 1).all(1))):
            is_object = cut_area[i] >= self.min_visible * area[i]
            x, y = (cut[i, :2] - [tile.x1, tile.y1]).tolist()
            found.append(
                {
                    "category_id": category_ids[annotations[i]["category_id"]],
                    "bbox": [x, y, *cut_sides[i].tolist()],
                    "area": float(cut_area[i]),
                    "iscrowd": int(annotations[i].get("iscrowd", 0) or not is_object),
                }
            )
        return found


def write_coco(path, categories, cut):
    """Write an annotation file in COCO format from what `Cutter.cut` yields, as it comes; return `Counts`.

    `categories` is a dict from category id to class name.
    """
    counts, last = Counts(), None
    drafts = {key: f"{path}.{key}" for key in ("images", "annotations")}
    with open(drafts["images"], "w") as images, open(drafts["annotations"], "w") as annotations:
        for number, entry, found in cut:
            counts.images += number != last
            last = number
            objects = sum(not annotation["iscrowd"] for annotation in found)
            counts.empty += not objects
            if entry is None:
                continue
            counts.tiles += 1
            separator = ",\n" if counts.tiles > 1 else "\n"
            images.write(separator + json.dumps({"id": counts.tiles, **entry}))
            for annotation in found:
                counts.objects += not annotation["iscrowd"]
                counts.regions += annotation["iscrowd"]
                ids = {"id": counts.objects + counts.regions, "image_id": counts.tiles}
                annotations.write((",\n" if ids["id"] > 1 else "\n") + json.dumps({**ids, **annotation}))
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"categories": {json.dumps([{"id": k, "name": name} for k, name in categories.items()])}')
        for key, draft in drafts.items():
            file.write(f',\n"{key}": [')
            with open(draft) as part:
                shutil.copyfileobj(part, file)
            file.write("]")
            os.remove(draft)
        file.write("}\n")
    return counts
