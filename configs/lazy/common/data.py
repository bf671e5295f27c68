"""COCO at a short side of 800 pixels, 16 pictures a batch."""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T

from atss.data import EvalResize
from atss.data.mapper import PictureMapper
from atss.evaluation.coco import BoxEvaluator

dataloader = dict(
    # COCO-format datasets of yours: [name, annotation file, picture folder] each.
    register=[],
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="coco_2017_train", filter_empty=True),
        mapper=L(PictureMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=[800], max_size=1333, sample_style="choice"),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="BGR",
            ignore_crowd=False,
        ),
        total_batch_size=16,
        num_workers=4,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
        mapper=L(PictureMapper)(
            is_train=False,
            augmentations=[L(EvalResize)(min_size=800, max_size=1333, like="detectron2")],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers="${..train.num_workers}",
    ),
    evaluator=L(BoxEvaluator)(dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"),
)
