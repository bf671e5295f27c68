"""Average precision, by Detectron2's COCOEvaluator without its loops in Python."""

import os

from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets

from .average_precision import precision_and_recall


def build_coco_evaluator(cfg, dataset_name):
    """Evaluator of boxes for a dataset; writes `coco_instances_results.json` into its `inference_folder`."""
    return BoxEvaluator(dataset_name, inference_folder(cfg, dataset_name))


def inference_folder(cfg, dataset_name):
    """Folder of the boxes found in a dataset: `inference` in OUTPUT_DIR, with one for each where they are several."""
    several = len(cfg.DATASETS.TEST) > 1
    return os.path.join(cfg.OUTPUT_DIR, "inference", *([dataset_name] if several else []))


class BoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator for boxes, with `evaluate_boxes` in the place of pycocotools' evaluation.

    Args:
        dataset_name: registered dataset.
        output_dir: folder for the detections.
        max_dets_per_image: the highest limit on a class's detections of an image; 100, COCO's, where none is given.
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
        evaluation = None  # what Detectron2 expects where nothing was found at all
        if results:
            evaluation = evaluate_boxes(self._coco_api, results, self._max_dets_per_image, img_ids)
        self._results["bbox"] = self._derive_coco_results(
            evaluation, "bbox", class_names=self._metadata.get("thing_classes")
        )


def evaluate_boxes(coco, results, max_detections=(1, 10, 100), image_ids=None):
    """Evaluate boxes as pycocotools does, and print its table.

    Args:
        coco: `pycocotools.coco.COCO` with the objects.
        results: list of detections in COCO's format of results.
        max_detections: three limits on a class's detections of an image; the table's AP is for the highest.
        image_ids: ids of the images that count, all where None.

    Returns:
        `pycocotools.cocoeval.COCOeval` with `stats`, and in `eval` precision and recall.

    Raises:
        ValueError: a result's image is not in the dataset.
    """
    unknown = {result["image_id"] for result in results} - coco.imgs.keys()
    if unknown:
        raise ValueError(f"results of images that are not in the dataset: {sorted(unknown)[:10]}")
    if image_ids is not None:
        image_ids = set(image_ids)
        results = [result for result in results if result["image_id"] in image_ids]
    counting = coco.imgs.keys() if image_ids is None else image_ids
    annotations = [a for a in coco.dataset["annotations"] if a["image_id"] in counting]

    evaluation = COCOevalMaxDets(iouType="bbox")
    evaluation.params.maxDets = sorted(max_detections)
    precision, recall = precision_and_recall(annotations, results, sorted(coco.cats), evaluation.params)
    evaluation.eval = {"precision": precision, "recall": recall}
    evaluation.summarize()
    return evaluation
