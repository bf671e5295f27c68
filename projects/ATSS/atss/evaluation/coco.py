"""COCO's average precision: Detectron2's COCOEvaluator with hotcoco, or pycocotools where hotcoco is not installed."""

import contextlib
import io
import json
import os

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools import cocoeval
from pycocotools.coco import COCO

from ..data.ids import translated

try:
    import hotcoco
except ImportError:
    hotcoco = None

# Name of Detectron2's file of detections.
RESULTS = "coco_instances_results.json"


def build_coco_evaluator(cfg, dataset_name):
    """Build the box evaluator of a dataset; it writes `RESULTS` into the `inference_folder`."""
    return BoxEvaluator(dataset_name, inference_folder(cfg, dataset_name))


def inference_folder(cfg, dataset_name):
    """Return OUTPUT_DIR/inference, or its subfolder for the dataset where the config tests on several."""
    folder = os.path.join(cfg.OUTPUT_DIR, "inference")
    return os.path.join(folder, dataset_name) if len(cfg.DATASETS.TEST) > 1 else folder


class BoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for boxes, with its `max_dets_per_image`, which evaluates with `evaluate_boxes`.

    The file of detections has the ids of the dataset's own file.
    """

    def __init__(self, dataset_name, output_dir, max_dets_per_image=None):
        options = {"output_dir": output_dir, "max_dets_per_image": max_dets_per_image}
        super().__init__(dataset_name, **options, use_fast_impl=False)
        self._use_fast_impl = True  # from here on only for Detectron2's log: hotcoco is not the official implementation

    def _tasks_from_predictions(self, predictions):
        return ()  # without a task, Detectron2 maps the results to the dataset's category ids and writes them, no more

    def _eval_predictions(self, predictions, img_ids=None):
        super()._eval_predictions(predictions, img_ids)
        results = [result for prediction in predictions for result in prediction["instances"]]
        own_ids = self._metadata.get("own_ids")
        if own_ids and self._output_dir:
            with open(os.path.join(self._output_dir, RESULTS), "w", encoding="utf-8") as file:
                json.dump(translated(results, own_ids), file)
        if not self._do_evaluation:
            return
        # For no detections at all, Detectron2 expects None.
        evaluation = evaluate_boxes(self._coco_api, results, self._max_dets_per_image, img_ids) if results else None
        self._results["bbox"] = self._derive_coco_results(evaluation, "bbox", self._metadata.get("thing_classes"))


def evaluate_boxes(coco, results, max_detections=(1, 10, 100), image_ids=None):
    """Evaluate boxes, with metrics equal to those of pycocotools to the last bit, and print its table.

    Args:
        coco: `pycocotools.coco.COCO` with the ground truth.
        results: detections in COCO's results format: a list, or the path of a json file.
        max_detections: three limits on the detections per image and class; the table's AP is for the highest.
        image_ids: ids of the images to evaluate; None for all.

    Returns:
        `pycocotools.cocoeval.COCOeval` with `stats`, and `eval` with precision (T, R, K, A, M) and recall (T, K, A, M).

    Raises:
        ValueError: a result in the list is for an image that is not in the dataset.
    """
    if isinstance(results, list):
        unknown = {result["image_id"] for result in results} - coco.imgs.keys()
        if unknown:
            raise ValueError(f"results of images that are not in the dataset: {sorted(unknown)[:10]}")
    params = {"maxDets": sorted(max_detections)}
    if image_ids is not None:
        params["imgIds"] = list(image_ids)
    return summarize(run_coco_eval(ground_truth_of(coco), results, **params))


def summarize(evaluation):
    """Accumulate the `COCOeval` of `run_coco_eval` and print its table; see `evaluate_boxes` for what is returned."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    summary = COCOevalMaxDets(iouType="bbox")
    summary.params.maxDets = evaluation.params.maxDets
    summary.eval = {key: evaluation.eval[key] for key in ("precision", "recall")}
    summary.summarize()
    return summary


def ground_truth_of(coco):
    """Return the images, classes and boxes of a `pycocotools.coco.COCO` as a dict for `run_coco_eval`.

    A missing `area` becomes that of the box, a missing `iscrowd` 0. Annotations are numbered from 1: an id of 0 means
    "no match" in the evaluation.
    """
    annotations = [
        {
            "id": number, "image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"],
            "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]), "iscrowd": int(entry.get("iscrowd", 0)),
        }
        for number, entry in enumerate(coco.dataset["annotations"], 1)
    ]  # fmt: skip
    return {
        "images": [{"id": image_id} for image_id in coco.imgs],
        "categories": [{"id": category_id, "name": str(category_id)} for category_id in sorted(coco.cats)],
        "annotations": annotations,
    }


def run_coco_eval(ground_truth, results, **params):
    """Run COCO's evaluation of boxes with hotcoco, or with pycocotools where hotcoco is missing or ids are negative.

    Args:
        ground_truth: dict with `images`, `categories` and `annotations`, complete and numbered from 1.
        results: detections in COCO's results format: list, path of a json file, or (D, 7) array of image_id, x, y,
            width, height, score, category_id. They are numbered from 1, in this order.
        params: attributes of `pycocotools.cocoeval.Params`.

    Returns the `COCOeval` of either library, evaluated but not accumulated.
    """
    ids = [entry["id"] for key in ("images", "categories") for entry in ground_truth[key]]
    fast = hotcoco is not None and min(ids, default=0) >= 0
    library, index = (hotcoco, hotcoco.COCO) if fast else (cocoeval, index_coco)
    if not fast and isinstance(results, list):
        results = [dict(result) for result in results]  # pycocotools adds entries to them
    with contextlib.redirect_stdout(io.StringIO()):
        objects = index(ground_truth)
        # pycocotools cannot load an empty list.
        detections = objects.loadRes(results) if len(results) else index({**ground_truth, "annotations": []})
        evaluation = library.COCOeval(objects, detections, "bbox")
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
    return evaluation


def index_coco(content):
    """Return the `pycocotools.coco.COCO` for the content of a json file."""
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
