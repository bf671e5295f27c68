"""Average precision, by Detectron2's COCOEvaluator."""

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
    # Many exporters leave out what COCO's evaluation reads besides the boxes.
    for annotation in evaluator._coco_api.dataset.get("annotations", ()):
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    return evaluator


def has_fast_evaluation():
    """Whether this Detectron2 has its compiled part."""
    try:
        from detectron2 import _C
    except ImportError:
        return False
    return hasattr(_C, "COCOevalEvaluateImages")
