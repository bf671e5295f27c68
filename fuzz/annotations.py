#!/usr/bin/env python
"""Annotation files of any content: read and found good for training, or refused in one line.

    python fuzz/annotations.py -max_total_time=600

The first byte chooses the format: COCO's json, YOLO's text or yaml, Pascal VOC's xml.
"""

import json
import math

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
VOC = (
    "<annotation><filename>a.png</filename><size><width>64</width><height>48</height></size><object><name>cat</name>"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
)
TOKENS = {
    "keys": "images categories annotations id name file_name width height image_id category_id bbox area iscrowd",
    "values": "null true NaN Infinity 1e999 -1 9223372036854775808 ../ \\u0000 supercategory",
    "yaml": "names train path val nc kpt_shape &a *a <<",
    "xml": "<!DOCTYPE <!ENTITY annotation object bndbox xmin ymin xmax ymax filename size",
}

top = working_folder("annotations")
# Format: file under test in a folder that has all else that the layout needs.
FILES = ("coco/annotations/train.json", "yolo/labels/train/a.txt", "named/data.yaml", "voc/Annotations/a.xml")
IMAGES = ("coco/train/a.png", "yolo/images/train/a.png", "named/images/train/a.png", "voc/JPEGImages/a.png")
for name in (*FILES, *IMAGES):
    (top / name).parent.mkdir(parents=True, exist_ok=True)
for name in IMAGES:
    Image.new("RGB", (64, 48)).save(top / name)


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
            for annotation in record["annotations"]:
                assert all(map(math.isfinite, annotation["bbox"])) and len(annotation["bbox"]) == 4
                assert annotation["category_id"] in range(len(classes))
        table = Table.of(split, dicts, classes.values())
        for problem in inspect([table], [split]) + unnamed_images([table]):
            assert len(problem.line().splitlines()) == 1, problem


if __name__ == "__main__":
    seeds = {
        "coco": b"\0" + json.dumps(COCO).encode(),
        "yolo": b"\1" + b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.1 0.2 0.3 0.1 0.3\n",
        "yaml": b"\2" + b"path: .\ntrain: images/train\nval: ../images/train\nnc: 2\nnames: {0: cat, 1: dog}\n",
        "voc": b"\3" + VOC.encode(),
    }
    fuzz(read, seeds, " ".join(TOKENS.values()).split())
