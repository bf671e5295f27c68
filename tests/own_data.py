"""A small dataset, written in every layout that `DATASETS.FOLDER` knows."""

import json
import os

import numpy as np
from PIL import Image

CLASSES = ["cat", "dog"]
# Images of each split: name, (width, height), and objects: class, [x, y, width, height].
IMAGES = {
    "train": [
        ("a.png", (64, 48), [("dog", [5, 6, 20, 30]), ("cat", [0, 0, 10, 12])]),
        ("b.png", (40, 60), [("cat", [30, 50, 10, 10])]),
    ],
    "val": [("c.png", (50, 50), [("dog", [1, 2, 48, 47])]), ("d.png", (32, 48), [])],
}


def records(images=IMAGES):
    """What reading must give: dict from split to {name: (width, height, objects in order)}."""
    return {
        split: {name: (*size, sorted((label, *box) for label, box in objects)) for name, size, objects in of_split}
        for split, of_split in images.items()
    }


def as_records(dicts, classes):
    """dicts in Detectron2's standard form -> the same form; coordinates to a millionth of a pixel."""
    found = {}
    for d in dicts:
        objects = sorted((classes[a["category_id"]], *(round(x, 6) for x in a["bbox"])) for a in d["annotations"])
        found[os.path.basename(d["file_name"])] = (d["width"], d["height"], objects)
    return found


def write_image(path, size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_coco(folder, annotations="annotations/{split}.json", images="{split}", splits=IMAGES, change=lambda c: None):
    for split, of_split in splits.items():
        content = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]}
        for number, (name, size, objects) in enumerate(of_split):
            write_image(folder / images.format(split=split) / name, size)
            content["images"].append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            for label, box in objects:
                entry = {"id": len(content["annotations"]), "image_id": number, "bbox": box}
                content["annotations"].append({**entry, "category_id": {"cat": 3, "dog": 7}[label]})
        change(content)
        write_text(folder / annotations.format(split=split), json.dumps(content))


def write_yolo(folder, images="images/{split}", labels="labels/{split}", splits=IMAGES, yaml=None):
    """Images without objects get no label file; `yaml` is written to data.yaml."""
    for split, of_split in splits.items():
        for name, (width, height), objects in of_split:
            write_image(folder / images.format(split=split) / name, (width, height))
            lines = [
                f"{CLASSES.index(label)} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
                for label, (x, y, w, h) in objects
            ]
            if lines:
                write_text(folder / labels.format(split=split) / name.replace(".png", ".txt"), "".join(lines))
    if yaml:
        write_text(folder / "data.yaml", yaml)


def write_voc(folder, annotations="Annotations", images="JPEGImages", lists=True, splits=IMAGES, first=1, last=0):
    """A box from x to x + w becomes xmin = x + first, xmax = x + w + last."""
    for split, of_split in splits.items():
        for name, size, objects in of_split:
            write_image(folder / images.format(split=split) / name, size)
            path = folder / annotations.format(split=split) / name.replace(".png", ".xml")
            write_text(path, xml(name, size, objects, first, last))
        if lists:
            names = [name.removesuffix(".png") for name, *_ in of_split]
            write_text(folder / "ImageSets/Main" / f"{split}.txt", "\n".join(names) + "\n")


def xml(name, size, objects, first=1, last=0):
    boxes = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{x + first}</xmin><ymin>{y + first}</ymin>"
        f"<xmax>{x + w + last}</xmax><ymax>{y + h + last}</ymax></bndbox></object>"
        for label, (x, y, w, h) in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{name}</filename>{sides}{boxes}</annotation>"
