"""The paper's model on ResNet-50, for the 80 classes of COCO."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import FPN, BasicStem, ResNet

from atss import ATSS, ATSSHead
from atss.anchors import make_cell_anchors
from atss.assigners import ATSSAssigner
from atss.backbones.fpn import P6P7
from atss.backbones.resnet import make_bottleneck_stages
from atss.box_coding import BoxCoding
from atss.inference import BoxSelector

model = L(ATSS)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(make_bottleneck_stages)(
                depth=50,
                in_channels="${..stem.out_channels}",
                out_channels=256,
                norm="${..stem.norm}",
                num_groups=1,
                width_per_group=64,
                stride_in_1x1=True,
                deform_on_per_stage=[False, False, False, False],
                deform_modulated=True,
            ),
            out_features=["res3", "res4", "res5"],
            freeze_at=2,
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=256,
        norm="",
        top_block=L(P6P7)(channels="${..out_channels}", relu=True),
    ),
    head=L(ATSSHead)(
        in_channels="${..backbone.out_channels}",
        strides=[8, 16, 32, 64, 128],
        num_classes=80,
        cell_anchors=L(make_cell_anchors)(strides="${..strides}", scale=8.0, aspect_ratios=[1.0], scales_per_octave=1),
        anchor_offset=0.5,
        assigner=L(ATSSAssigner)(topk=9, backend="auto"),
        box_coding=L(BoxCoding)(weights=[10.0, 10.0, 5.0, 5.0], pixel_extent=0),
        box_selector=L(BoxSelector)(
            score_threshold=0.05,
            topk_per_level=1000,
            nms_threshold=0.6,
            max_detections=100,
            topk_by_centerness=True,
            score_root=True,
        ),
        num_convs=4,
        norm="GN",
        deformable=False,
        centerness=True,
        level_scalars=True,
        prior_prob=0.01,
        focal_loss_alpha=0.25,
        focal_loss_gamma=2.0,
        box_loss="giou",
        box_loss_weight=2.0,
        smooth_l1_beta=0.11,
    ),
    in_features=["p3", "p4", "p5", "p6", "p7"],
    pixel_mean=[102.9801, 115.9465, 122.7717],  # of the MSRA weights, BGR
    pixel_std=[1.0, 1.0, 1.0],
)
