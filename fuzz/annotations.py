#!/usr/bin/env python
"""Annotation files of any content: read and found good for training, or refused in one line.

    python fuzz/annotations.py -max_total_time=600

The first byte chooses the format: COCO's json, YOLO's text, yaml or list, Pascal VOC's xml.
"""

import json
import math
import os

import atheris

from harness import fuzz, working_folder

with atheris.instrument_imports(include=["atss.data", "xml", "json", "yaml"]):
    import atss  # noqa: F401

    # isort: split
    from PIL import Image

    from atss.data.coco import classes_of, dicts_of
    from atss.data.entries import sound_content
    from atss.data.folders import find_dataset
    from atss.data.inspection import Table, inspect, unnamed_images

BOX = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [5, 6, 20.5, 30], "area": 600, "iscrowd": 0}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 0, "name": "pets", "supercategory": "none"}],
    "annotations": [BOX],
}
POLYGON = {"id": "a", "image_id": "0", "category_id": "cat", "segmentation": [[5, 5, 9, 5, 9, 9.5]]}
MASK = {"size": [48, 64], "counts": "e7n0b000000[b2"}
RUNS = {"size": [48, 64], "counts": [245, 30, 2797]}
EXPORT = {
    "images": [{"id": "0", "file_name": "..\\x\\a.png", "width": 64, "height": 48}],
    "categories": [{"id": "cat", "name": "cat"}],
    "annotations": [POLYGON, {**POLYGON, "segmentation": MASK}, {**POLYGON, "segmentation": RUNS}],
}
VOC = (
    "<annotation><filename>a.png</filename><size><width>64</width><height>48</height></size><object><name>cat</name>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
)
TOKENS = {
    "keys": "images categories annotations id name file_name width height image_id category_id bbox area iscrowd",
    "segmentations": "segmentation size counts",
    "values": "null true NaN Infinity 1e999 -1 9223372036854775808 ../ ..\\\\ C:\\\\ \\u0000 supercategory \ufeff",
    "yaml": "names train path val nc kpt_shape &a *a <<",
    "xml": "<!DOCTYPE <!ENTITY annotation object bndbox xmin ymin xmax ymax filename size",
}

top = working_folder("annotations")
# Format: file under test in a folder that has all else that the layout needs.
FILES = (
    "coco/annotations/train.json", "yolo/labels/train/a.txt", "named/data.yaml", "voc/Annotations/a.xml",
    "listed/train.txt",
)  # fmt: skip
IMAGES = (
    "coco/train/a.png", "yolo/images/train/a.png", "named/images/train/a.png", "voc/JPEGImages/a.png",
    "listed/images/train/a.png", "listed/images/train/b.png",
)  # fmt: skip
for name in (*FILES, *IMAGES):
    (top / name).parent.mkdir(parents=True, exist_ok=True)
for name in IMAGES:
    Image.new("RGB", (64, 48)).save(top / name)
(top / "listed/data.yaml").write_text("names: [cat]\ntrain: train.txt\n")


def read(data):
    path = top / FILES[data[0] % len(FILES)] if data else top / FILES[0]
    path.write_bytes(data[1:])
    dataset = find_dataset(str(top / path.relative_to(top).parts[0]))
    for split, source in dataset.splits.items():
        content = source.read()
        coco, problems = sound_content(content.coco)
        for problem in [*problems, *content.problems]:
            assert "\n" not in problem.line(), problem
        dicts = dicts_of(coco, content.image_folder)
        classes = classes_of(coco)
        for record in dicts:
            image = os.path.realpath(record["file_name"])
            assert path.parts[len(top.parts)] == "named" or image.startswith(os.path.join(top, "")), image
            for annotation in record["annotations"]:
                assert all(map(math.isfinite, annotation["bbox"])) and len(annotation["bbox"]) == 4
                assert annotation["category_id"] in range(len(classes))
        table = Table.of(split, dicts, classes.values())
        for problem in inspect([table], [split]) + unnamed_images([table]):
            assert len(problem.line().splitlines()) == 1, problem


if __name__ == "__main__":
    seeds = {
        "coco": b"\0" + json.dumps(COCO).encode(),
        "export": b"\0" + json.dumps(EXPORT).encode(),
        "utf-16": b"\0" + json.dumps(EXPORT).encode("utf-16"),
        "yolo": b"\1" + b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n",
        "yaml": b"\2" + b"path: .\ntrain: images/train\nval: ../images/train\nnc: 2\nnames: {0: cat, 1: dog}\n",
        "list": b"\4" + b"images/train/a.png\nC:\\x\\a.png\n/x/b.png\n",
        "voc": b"\3" + VOC.encode(),
        "voc in utf-16": b"\3" + VOC.encode("utf-16"),
    }
    fuzz(read, seeds, " ".join(TOKENS.values()).split())
