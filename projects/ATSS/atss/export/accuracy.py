"""Average precision and latency of ONNX files on a dataset, as their users run them: with `example.Detector`."""

import contextlib
import io
import statistics
import tempfile
import time

import torch
import tqdm
from detectron2.structures import Boxes, Instances

from ..data.image_io import read_image
from ..evaluation.coco import BoxEvaluator
from .torch_file import quiet


def measure(detectors, dataset, records):
    """Run several detectors image by image, in turns.

    Args:
        detectors: list of `example.Detector`.
        dataset: name of the registered dataset.
        records: its dicts, from `read_dataset`.

    Returns:
        A pair for each detector: the average precision in percent, nan if it detects nothing; and the median time per
        image in milliseconds, from decoded pixels to boxes.
    """
    seconds = [[] for _ in detectors]
    # The evaluators write what they evaluate, and print tables.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), quiet():
        evaluators = [BoxEvaluator(dataset, folder) for _ in detectors]
        for evaluator in evaluators:
            evaluator.reset()
        for record in tqdm.tqdm(records, "Images", disable=None, leave=False):
            image = read_image(record["file_name"], "RGB")
            for detector, evaluator, times in zip(detectors, evaluators, seconds, strict=True):
                begin = time.perf_counter()
                boxes, scores, classes = map(torch.from_numpy, detector(image))
                times.append(time.perf_counter() - begin)
                fields = {"pred_boxes": Boxes(boxes), "scores": scores, "pred_classes": classes}
                evaluator.process([record], [{"instances": Instances(image.shape[:2], **fields)}])
        precisions = [evaluator.evaluate()["bbox"]["AP"] for evaluator in evaluators]
    return [(ap, statistics.median(times) * 1e3) for ap, times in zip(precisions, seconds, strict=True)]
