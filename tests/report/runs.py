"""Small synthetic runs: datasets and the files of a training and an evaluation, without a model."""

import json

import numpy as np
from PIL import Image

from atss.config import load_config
from atss.report.boxes import Boxes, read_content, read_results
from tests.helpers import DEMO_CONFIG, pairs

LOSSES = ("loss_cls", "loss_box", "loss_centerness")
NAMES = ["cat", "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", 'a & "b" 猫🦊 $x^2$']


def annotation(image_id, category_id, box, crowd=0):
    """An object in COCO's format, without an id."""
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}


def result(image_id, category_id, box, score):
    """A detection in COCO's format of results."""
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def content_of(num_images, classes, annotations):
    """Content of an annotation file: images 1, 2, ... of 120 x 90 pixels, classes with ids 10, 20, ..."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 90} for i in range(1, num_images + 1)],
        "categories": [{"id": 10 * k, "name": name} for k, name in enumerate(classes, 1)],
        "annotations": [{"id": i, **entry} for i, entry in enumerate(annotations, 1)],
    }


def random_boxes(seed, num_images=12, num_classes=4):
    """Return content and results with every kind of error, crowds and equal scores."""
    random = np.random.default_rng(seed)
    annotations, results = [], []

    def box():
        return [*random.uniform(0, 60, 2), *random.uniform(8, 50, 2)]

    for image_id in range(1, num_images + 1):
        for _ in range(random.integers(0, 7)):
            category_id, place = 10 * int(random.integers(1, num_classes)), box()
            annotations.append(annotation(image_id, category_id, place, int(random.random() < 0.15)))
            for _ in range(random.integers(0, 4)):
                shift = random.normal(0, 0.2, 4) * np.tile(place[2:], 2)
                guess = category_id if random.random() < 0.6 else 10 * int(random.integers(1, num_classes + 1))
                shifted = [float(x) for x in place + shift]
                results.append(result(image_id, guess, shifted, int(random.integers(1, 20)) / 20))
        for _ in range(random.integers(0, 4)):
            guess = 10 * int(random.integers(1, num_classes + 1))
            results.append(result(image_id, guess, box(), int(random.integers(1, 20)) / 20))
    return content_of(num_images, [f"class {k}" for k in range(num_classes)], annotations), results


def arrays(content, results):
    """`Boxes` of a content and results."""
    dataset = read_content("made", content, "")
    return Boxes(dataset.objects, read_results(results, dataset))


def made(objects, detections):
    """`Boxes` in one image with three classes, of (class, box) or (class, box, crowd) and (class, box, score)."""
    annotations = [annotation(1, 10 * (k + 1), list(box), *rest) for k, box, *rest in objects]
    results = [result(1, 10 * (k + 1), list(box), score) for k, box, score in detections]
    return arrays(content_of(1, ["a", "b", "c"], annotations), results)


def log(num_lines=6, start=0, **more):
    """Lines of metrics.json, one every 20 iterations."""
    lines = []
    for place in range(num_lines):
        line = {"iteration": start + 20 * place + 19, "total_loss": 3.0 - 0.1 * place, "lr": 0.01, "time": 0.5}
        lines.append({**line, **{name: 1.0 - 0.03 * place for name in LOSSES}, **more})
    return lines


def evaluated(iteration, ap, prefix=""):
    """Line that an evaluation adds to metrics.json."""
    figures = {"bbox/AP": ap, "bbox/AP50": ap + 20, "bbox/AP75": ap + 1, "bbox/APs": ap, "bbox/APm": ap, "bbox/APl": ap}
    losses = {f"validation/{name}": 1.1 for name in ("total_loss", *LOSSES)}
    return {"iteration": iteration, **{f"{prefix}{key}": value for key, value in {**figures, **losses}.items()}}


def whole_run(root):
    """Write a run with everything: NAMES as classes, the last without ground truth, a training and two evaluations."""
    content, results = random_boxes(1)
    for category, name in zip(content["categories"], NAMES, strict=True):
        category["name"] = name
    return make_run(root, [content], [results], [*log(60), evaluated(599, 20.0), evaluated(1200, 31.5)])


def as_text(content):
    return content if isinstance(content, str) else json.dumps(content)


def make_run(root, contents, results=(), metrics=None, images=True):
    """Write a run and its datasets `made_0`, `made_1`, ... into `root`; return the path of the run, `root`/run.

    Args:
        contents: list of contents, one per dataset.
        results: list of results or texts for their files, one per dataset, but the last ones may have none.
        metrics: list of lines, dicts or texts; None for no file.
        images: whether to write image files.
    """
    folder, entries = root / "run", []
    folder.mkdir(parents=True)
    for place, content in enumerate(contents):
        data = root / f"data_{place}"
        data.mkdir()
        (data / "annotations.json").write_text(json.dumps(content))
        for image in content["images"] if images else []:
            shade = np.random.default_rng(image["id"]).integers(0, 255, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(shade).resize((120, 90)).save(data / image["file_name"])
        entries.append([f"made_{place}", str(data / "annotations.json"), str(data)])
    names = tuple(entry[0] for entry in entries)
    classes = [category["name"] for category in contents[0]["categories"]]
    settings = {
        "DATASETS.REGISTER": entries, "DATASETS.TRAIN": names, "DATASETS.TEST": names,
        "MODEL.ATSS.NUM_CLASSES": len(classes), "MODEL.ATSS.CLASS_NAMES": classes, "MODEL.DEVICE": "cpu",
    }  # fmt: skip
    (folder / "config.yaml").write_text(load_config(DEMO_CONFIG, pairs(settings), read_datasets=False).dump())
    for name, found in zip(names, results, strict=False):
        inside = folder / "inference" / (name if len(names) > 1 else "")
        inside.mkdir(parents=True)
        (inside / "coco_instances_results.json").write_text(as_text(found))
    if metrics is not None:
        (folder / "metrics.json").write_text("\n".join(map(as_text, metrics)))
    return folder
