"""COCO's average precision: Detectron2's COCOEvaluator with hotcoco, or pycocotools where hotcoco is not installed."""

import contextlib
import io
import os

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools import coco as pycocotools_coco
from pycocotools import cocoeval as pycocotools_cocoeval

try:
    import hotcoco
except ImportError:
    hotcoco = None


def build_coco_evaluator(cfg, dataset_name):
    """Evaluator of boxes for a dataset; writes `coco_instances_results.json` into its `inference_folder`."""
    return BoxEvaluator(dataset_name, inference_folder(cfg, dataset_name))


def inference_folder(cfg, dataset_name):
    """Folder for the detections of a dataset: `inference` in OUTPUT_DIR, with a subfolder for each of several."""
    several = len(cfg.DATASETS.TEST) > 1
    return os.path.join(cfg.OUTPUT_DIR, "inference", *([dataset_name] if several else []))


class BoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for boxes, with `evaluate_boxes` in place of its own evaluation.

    Args:
        dataset_name: registered dataset.
        output_dir: folder for the detections.
        max_dets_per_image: highest limit on the detections per image and class; None for COCO's 100.
    """

    def __init__(self, dataset_name, output_dir, max_dets_per_image=None):
        super().__init__(
            dataset_name, output_dir=output_dir, max_dets_per_image=max_dets_per_image, use_fast_impl=False
        )
        # Only Detectron2's log reads this below, and it should not call the evaluation official.
        self._use_fast_impl = True

    def _tasks_from_predictions(self, predictions):
        # With nothing to evaluate, Detectron2 gives the results the dataset's category ids, and writes them.
        return ()

    def _eval_predictions(self, predictions, img_ids=None):
        super()._eval_predictions(predictions, img_ids)
        if not self._do_evaluation:
            return
        results = [result for prediction in predictions for result in prediction["instances"]]
        evaluation = None  # what Detectron2 expects where there is no detection at all
        if results:
            evaluation = evaluate_boxes(self._coco_api, results, self._max_dets_per_image, img_ids)
        self._results["bbox"] = self._derive_coco_results(
            evaluation, "bbox", class_names=self._metadata.get("thing_classes")
        )


def evaluate_boxes(coco, results, max_detections=(1, 10, 100), image_ids=None):
    """Evaluate boxes as pycocotools does, to the last bit, and print its table.

    Args:
        coco: `pycocotools.coco.COCO` with the ground truth.
        results: detections in COCO's results format: a list, or the path of a json file.
        max_detections: three limits on the detections per image and class; the table's AP is for the highest.
        image_ids: ids of the images to evaluate; None for all.

    Returns:
        `pycocotools.cocoeval.COCOeval` with `stats`, and `eval` with precision (T, R, K, A, M) and recall (T, K, A, M).

    Raises:
        ValueError: a result is of an image that is not in the dataset.
    """
    if isinstance(results, list):
        unknown = {result["image_id"] for result in results} - coco.imgs.keys()
        if unknown:
            raise ValueError(f"results of images that are not in the dataset: {sorted(unknown)[:10]}")
    params = {"maxDets": sorted(max_detections), "imgIds": None if image_ids is None else list(image_ids)}
    done = run_coco_eval(ground_truth_of(coco), results, **params)
    with contextlib.redirect_stdout(io.StringIO()):
        done.accumulate()
    evaluation = COCOevalMaxDets(iouType="bbox")
    evaluation.params.maxDets = sorted(max_detections)
    evaluation.eval = {key: done.eval[key] for key in ("precision", "recall")}
    evaluation.summarize()
    return evaluation


def ground_truth_of(coco):
    """The images, classes and boxes of a `pycocotools.coco.COCO`, as a dict for `run_coco_eval`.

    Annotations may lack `area`, then that of the box, `iscrowd`, then 0, and `id`. They are numbered from 1: evaluation
    takes an id of 0 for no match.
    """
    annotations = []
    for number, annotation in enumerate(coco.dataset["annotations"], 1):
        x, y, width, height = annotation["bbox"]
        annotations.append(
            {
                "id": number,
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": [x, y, width, height],
                "area": annotation.get("area", width * height),
                "iscrowd": int(annotation.get("iscrowd", 0)),
            }
        )
    return {
        "images": [{"id": image_id} for image_id in coco.imgs],
        "categories": [{"id": category_id, "name": str(category_id)} for category_id in sorted(coco.cats)],
        "annotations": annotations,
    }


def run_coco_eval(ground_truth, results, **params):
    """COCO's evaluation of boxes, by hotcoco where it is installed and takes the ids, else by pycocotools.

    Args:
        ground_truth: dict with `images`, `categories` and `annotations`, complete and numbered from 1.
        results: detections in COCO's results format: list, path of a json file, or (D, 7) array of image_id, x, y,
            width, height, score, category_id. They are numbered from 1, in this order.
        params: attributes of `pycocotools.cocoeval.Params`, None for the default.

    Returns:
        `COCOeval` of either library, evaluated but not accumulated.
    """
    fast = can_use_hotcoco(ground_truth)
    with contextlib.redirect_stdout(io.StringIO()):
        if fast:
            objects = hotcoco.COCO(ground_truth)
            detections = objects.load_res(results)
        else:
            objects = pycocotools_index(ground_truth)
            # pycocotools reads no empty list, and writes into the results.
            results = [dict(result) for result in results] if isinstance(results, list) else results
            detections = (
                objects.loadRes(results) if len(results) else pycocotools_index({**ground_truth, "annotations": []})
            )
        library = hotcoco if fast else pycocotools_cocoeval
        evaluation = library.COCOeval(objects, detections, "bbox")
        for name, value in params.items():
            if value is not None:
                setattr(evaluation.params, name, value)
        evaluation.evaluate()
    return evaluation


def can_use_hotcoco(ground_truth):
    """Whether hotcoco is installed and takes the ids of a ground truth, which it wants not to be negative."""
    ids = [entry["id"] for key in ("images", "categories") for entry in ground_truth[key]]
    return hotcoco is not None and min(ids, default=0) >= 0


def pycocotools_index(content):
    coco = pycocotools_coco.COCO()
    coco.dataset = content
    coco.createIndex()
    return coco
