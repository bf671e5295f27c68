"""Average precision, by Detectron2's COCOEvaluator."""

import contextlib
import io
import os

from detectron2.evaluation import COCOEvaluator


def build_coco_evaluator(cfg, dataset_name):
    """Evaluator of boxes for a dataset; writes `inference/coco_instances_results.json` into the output folder."""
    evaluator = COCOEvaluator(
        dataset_name,
        tasks=("bbox",),
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"),
        use_fast_impl=has_fast_evaluation(),
    )
    complete_annotations(evaluator._coco_api)
    return evaluator


def complete_annotations(coco):
    """Give annotations what COCO's evaluation reads besides the boxes, and many exporters leave out.

    That is `iscrowd`, `area`, and an `id` other than 0: pycocotools takes an object of id 0 for one that was not found.

    Args:
        coco: `pycocotools.coco.COCO`, changed in place.
    """
    annotations = coco.dataset.get("annotations", ())
    shift = any(annotation["id"] == 0 for annotation in annotations)
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        annotation["id"] += shift
    if shift:
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()


def has_fast_evaluation():
    """Whether this Detectron2 has its compiled part."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return hasattr(_C, "COCOevalEvaluateImages")
