import math
import re

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from atss import add_atss_config
from atss.modeling.anchors import make_cell_anchors
from atss.modeling.assigners import ASSIGNER_REGISTRY, ATSSAssigner, IoUAssigner
from atss.modeling.box_coding import BoxCoding, PointCoding
from atss.modeling.distribution_coding import DistributionCoding
from atss.modeling.head import ATSSHead, Predictions, build_assigner
from atss.modeling.inference import BoxSelector
from atss.modeling.losses import centerness_targets, giou_loss
from tests.modeling.test_fused_losses import matched_targets

STRIDES = [8, 16, 32, 64, 128]


def make_head(box_coding=None, aspect_ratios=(1.0,), assigner=None, **options):
    return ATSSHead(
        in_channels=64,
        strides=STRIDES,
        num_classes=3,
        cell_anchors=make_cell_anchors(STRIDES, 8.0, aspect_ratios),
        anchor_offset=0.5,
        assigner=assigner or ATSSAssigner(),
        box_coding=box_coding or BoxCoding(),
        box_selector=BoxSelector(),
        **options,
    )


def features(images=2, height=64, width=96):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, 64, -(-height // s), -(-width // s), generator=generator) for s in STRIDES]


def objects(*counts):
    generator = torch.Generator().manual_seed(1)
    boxes, classes = [], []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 40
        boxes.append(torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 40], dim=1))
        classes.append(torch.randint(0, 3, (count,), generator=generator))
    return boxes, classes


def test_layers_of_the_paper():
    head = make_head()

    for tower in (head.class_tower, head.box_tower):
        assert [type(layer.norm) for layer in tower] == [nn.GroupNorm] * 4
        assert all(layer.norm.num_groups == 32 and layer.kernel_size == (3, 3) for layer in tower)
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert torch.sigmoid(head.class_logits.bias).allclose(torch.tensor(0.01))
    assert (head.box_deltas.bias == 0).all() and (head.centerness.bias == 0).all()
    assert head.scales.tolist() == [1.0] * 5 and head.scales.requires_grad
    assert (make_head(PointCoding()).box_deltas.bias == 4).all()


def test_predictions_by_anchor_are_in_the_order_of_the_grid():
    logits = torch.arange(2 * 6 * 2 * 3).view(2, 6, 2, 3).float()  # 2 anchors per cell, 3 classes
    deltas, centerness = torch.rand(2, 8, 2, 3), torch.rand(2, 2, 2, 3)

    flat = Predictions([logits, logits], [deltas, deltas], [centerness, centerness]).by_anchor()

    assert [tuple(values.shape) for values in flat] == [(2, 24, 3), (2, 24, 4), (2, 24)]
    row, column, anchor = 1, 2, 1
    index = (row * 3 + column) * 2 + anchor
    for of_anchor, expected in zip(flat, (logits[1, 3:6], deltas[1, 4:], centerness[1, 1]), strict=True):
        assert of_anchor[1, index].tolist() == of_anchor[1, 12 + index].tolist() == expected[..., row, column].tolist()


@pytest.mark.parametrize("aspect_ratios", [(1.0,), (0.5, 1.0, 2.0)])
def test_one_prediction_an_anchor(aspect_ratios):
    head = make_head(aspect_ratios=aspect_ratios)

    grid, predictions = head(features())

    assert len(grid) == (96 + 24 + 6 + 2 + 1) * len(aspect_ratios)
    logits, deltas, centerness = predictions.by_anchor()
    assert logits.shape == (2, len(grid), 3)
    assert deltas.shape == (2, len(grid), 4)
    assert centerness.shape == (2, len(grid))


def test_scales_multiply_the_box_prediction_of_their_level_alone():
    head = make_head()
    _, before = head(features())
    with torch.no_grad():
        head.scales[1] = 2.0

    _, after = head(features())

    for level, expected in enumerate([1.0, 2.0, 1.0, 1.0, 1.0]):
        torch.testing.assert_close(after.deltas[level], before.deltas[level] * expected)
    torch.testing.assert_close(after.centerness, before.centerness)


def test_centerness_is_on_the_regression_tower():
    head = make_head()
    _, before = head(features())
    with torch.no_grad():
        head.class_tower[0].weight.zero_()
        head.class_tower[0].norm.weight.zero_()

    _, after = head(features())

    assert all(map(torch.equal, after.centerness, before.centerness))
    assert not any(map(torch.equal, after.logits, before.logits))


@pytest.mark.parametrize("box_coding", [BoxCoding(), PointCoding()])
def test_losses_are_the_papers(box_coding):
    """Written out over the positives, one by one."""
    head = make_head(box_coding)
    grid, predictions = head(features())
    gt_boxes, gt_classes = objects(3, 5)

    losses = head.losses(grid, predictions, gt_boxes, gt_classes)

    matches, anchors = ATSSAssigner()(grid, gt_boxes), grid.boxes()
    logits, deltas, of_center = predictions.by_anchor()
    boxes, centers = box_coding.decode(deltas, anchors), (anchors[:, :2] + anchors[:, 2:]) / 2
    focal = box = centerness = centerness_sum = num_positive = 0.0
    for n in range(2):
        for r, match in enumerate(matches[n].tolist()):
            for c, p in enumerate(logits[n, r].sigmoid().tolist()):
                positive = match >= 0 and gt_classes[n][match] == c
                focal -= 0.25 * (1 - p) ** 2 * math.log(p) if positive else 0.75 * p**2 * math.log(1 - p)
            if match >= 0:
                target = centerness_targets(centers[r], gt_boxes[n][match]).item()
                q = of_center[n, r].sigmoid().item()
                num_positive += 1
                centerness_sum += target
                centerness -= target * math.log(q) + (1 - target) * math.log(1 - q)
                box += giou_loss(boxes[n, r], gt_boxes[n][match]).item() * target

    assert num_positive > 20
    assert losses["loss_cls"].item() == pytest.approx(focal / num_positive, rel=1e-4)
    assert losses["loss_box"].item() == pytest.approx(2 * box / centerness_sum, rel=1e-4)
    assert losses["loss_centerness"].item() == pytest.approx(centerness / num_positive, rel=1e-4)


@pytest.mark.parametrize("height, width", [(64, 96), (16, 16), (8, 200)])
def test_an_object_of_one_pixel_also_where_levels_have_fewer_than_k_cells(height, width):
    head = make_head()
    box = [torch.tensor([[3.6, 3.6, 4.6, 4.6]])]

    losses = head.losses(*head(features(1, height, width)), box, [torch.tensor([2])])
    sum(losses.values()).backward()

    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in head.parameters())
    if height == 64:
        assert losses["loss_box"] > 0, "the anchor whose centre the object contains is positive"


def test_ignored_anchors_give_no_loss():
    class IgnoreAll(ATSSAssigner):
        def __call__(self, grid, gt_boxes, ignore_boxes=None):
            return torch.full_like(super().__call__(grid, gt_boxes), -2)

    head = make_head(assigner=IgnoreAll())

    losses = head.losses(*head(features()), *objects(3, 3))

    assert all(loss == 0 for loss in losses.values())


def test_regions_without_loss_change_the_class_loss_alone():
    head, predictions = make_head(), make_head()(features())
    gt_boxes, gt_classes = objects(3, 3)
    everywhere, nowhere = torch.tensor([[-1e3, -1e3, 1e3, 1e3]]), torch.empty(0, 4)

    plain = head.losses(*predictions, gt_boxes, gt_classes)
    none = head.losses(*predictions, gt_boxes, gt_classes, [nowhere, nowhere])
    some = head.losses(*predictions, gt_boxes, gt_classes, [everywhere, nowhere])

    assert plain == none
    assert some["loss_cls"] < plain["loss_cls"]
    assert some["loss_box"] == plain["loss_box"] and some["loss_centerness"] == plain["loss_centerness"]


def test_predictions_that_do_not_fit_the_grid_or_the_objects_are_named():
    head, (grid, predictions), (gt_boxes, gt_classes) = make_head(), make_head()(features()), objects(3, 3)
    larger, _ = head(features(height=96))

    with pytest.raises(ValueError, match=r"^predictions.logits: expected 2 images .*of 12 x 12, .*on 8 x 12, "):
        head.losses(larger, predictions, gt_boxes, gt_classes)
    with pytest.raises(ValueError, match=r"^predictions.logits: expected 1 images .*, got 2 on "):
        head.losses(grid, predictions, gt_boxes[:1], gt_classes[:1])
    with pytest.raises(ValueError, match=r"^gt_classes: expected as many as boxes, \[3, 3\] by image, got \[3\]"):
        head.losses(grid, predictions, gt_boxes, gt_classes[:1])
    with pytest.raises(ValueError, match=r"^gt_boxes\[1\]: expected shape \(number of boxes, 4\), got \(3, 2\)"):
        head.losses(grid, predictions, [gt_boxes[0], gt_boxes[1][:, :2]], gt_classes)


@pytest.mark.parametrize(
    "options", [{}, {"class_loss": "quality_focal", "centerness": False, "box_coding": DistributionCoding()}]
)
def test_mixed_precision_gives_losses_in_full_precision(options):
    head = make_head(**options)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        grid, predictions = head(features())
        losses = head.losses(grid, predictions, *objects(3, 5))
    exact = head.losses(*head(features()), *objects(3, 5))

    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact[name].item(), rel=0.02)


# The switches of Table 1: what each leaves out, of parameters and of losses.
SWITCHES = {
    "norm": ({"norm": ""}, r"(class|box)_tower\.\d\.norm\.(weight|bias)", set()),
    "centerness": ({"centerness": False}, r"centerness\.(weight|bias)", {"loss_centerness"}),
    "level_scalars": ({"level_scalars": False}, r"scales", set()),
    "box_loss": ({"box_loss": "smooth_l1"}, r"nothing", set()),
    "center_in_box": ({"assigner": IoUAssigner(center_in_box=True)}, r"nothing", set()),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_takes_its_own_parameters_and_losses_away_and_nothing_else(switch):
    options, parameters, losses = SWITCHES[switch]
    full, without = (make_head(**{"assigner": IoUAssigner(), **o}) for o in ({}, options))

    names, left = ({name for name, _ in head.named_parameters()} for head in (full, without))
    gone = {name for name in names if re.fullmatch(parameters, name)}
    # A convolution has a bias where no normalisation follows, as in Detectron2.
    added = {f"{tower}_tower.{i}.bias" for tower in ("class", "box") for i in range(4)}

    assert bool(gone) == (parameters != "nothing")
    assert left - added == names - gone - added
    found, expected = (head.losses(*head(features()), *objects(3, 5)) for head in (without, full))
    assert set(found) == set(expected) - losses


def shared_state(head, **options):
    """A head with other options and the same values in all parameters that both have."""
    other = make_head(**options)
    other.load_state_dict(head.state_dict(), strict=False)
    return other


def test_without_centerness_all_positives_weigh_the_same_and_class_scores_are_final():
    head = make_head(assigner=IoUAssigner())
    plain = shared_state(head, assigner=IoUAssigner(), centerness=False)
    (grid, with_centerness), (_, without) = head(features()), plain(features())
    gt_boxes, gt_classes = objects(3, 5)

    losses = plain.losses(grid, without, gt_boxes, gt_classes)

    for found, expected in zip(without[:2], with_centerness[:2], strict=True):
        assert all(map(torch.equal, found, expected))
    assert without.centerness is None
    assert losses["loss_cls"] == head.losses(grid, with_centerness, gt_boxes, gt_classes)["loss_cls"]
    matches, anchors = IoUAssigner()(grid, gt_boxes), grid.boxes()
    logits, deltas, _ = without.by_anchor()
    boxes = plain.box_coding.decode(deltas, anchors)
    each = [giou_loss(boxes[n, r], gt_boxes[n][matches[n, r]]).item() for n, r in (matches >= 0).nonzero().tolist()]
    assert losses["loss_box"].item() == pytest.approx(2 * sum(each) / len(each), rel=1e-5)

    plain.box_selector.score_threshold = 0.0
    (found, _) = plain.detect(grid, without, [(64, 96)] * 2)
    assert found.scores[0] == logits[0].sigmoid().max()


@pytest.mark.parametrize("box_coding", [BoxCoding(), PointCoding()])
def test_smooth_l1_is_of_the_deltas(box_coding):
    head = make_head(box_coding, assigner=IoUAssigner(), centerness=False, box_loss="smooth_l1", box_loss_weight=1.0)
    grid, predictions = head(features())
    gt_boxes, gt_classes = objects(3, 5)

    losses = head.losses(grid, predictions, gt_boxes, gt_classes)

    matches, anchors, total = IoUAssigner()(grid, gt_boxes), grid.boxes(), 0.0
    _, deltas, _ = predictions.by_anchor()
    positives = (matches >= 0).nonzero().tolist()
    for n, r in positives:
        target = box_coding.encode(gt_boxes[n][matches[n, r]], anchors[r])
        for difference in (deltas[n, r] - target).abs().tolist():
            total += difference - 0.055 if difference > 0.11 else difference**2 / 0.22
    assert losses["loss_box"].item() == pytest.approx(total / 4 / len(positives), rel=1e-4)


def test_with_all_switches_off_it_is_retinanets_head():
    """Two towers of convolutions with biases and ReLU, class scores and deltas: nothing else to learn."""
    head = make_head(norm="", centerness=False, level_scalars=False, box_loss="smooth_l1", assigner=IoUAssigner())

    names = {f"{tower}_tower.{i}" for tower in ("class", "box") for i in range(4)} | {"class_logits", "box_deltas"}

    assert {name for name, _ in head.named_parameters()} == {f"{n}.{p}" for n in names for p in ("weight", "bias")}
    assert set(head.losses(*head(features()), *objects(3, 5))) == {"loss_cls", "loss_box"}


RULES = dict(ASSIGNER_REGISTRY)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("aspect_ratios", [(1.0,), (0.5, 1.0, 2.0)])
def test_losses_and_gradients_are_finite_with_none_and_with_a_thousand_objects(rule, aspect_ratios):
    head = make_head(assigner=RULES[rule](), aspect_ratios=aspect_ratios)
    for counts in [(0, 0), (0, 4, 0), (1000, 1)]:
        losses = head.losses(*head(features(len(counts))), *objects(*counts))
        sum(losses.values()).backward()

        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        if counts == (0, 0):
            assert losses["loss_box"] == 0 and losses["loss_centerness"] == 0 and losses["loss_cls"] > 0


def test_a_rule_gets_those_keys_that_it_has_arguments_for():
    cfg = get_cfg()
    add_atss_config(cfg)
    atss = cfg.MODEL.ATSS
    atss.TOPK, atss.IOU_THRESHOLDS, atss.CENTER_IN_BOX = 7, [0.3, 0.6], True
    atss.SCALE_RANGES = [[0, 10], [10, 20]]
    built = {}
    for rule, rule_class in RULES.items():
        atss.ASSIGNER = rule
        built[rule] = build_assigner(cfg)
        assert type(built[rule]) is rule_class

    assert all(built[f"{rule}Assigner"].topk == 7 for rule in ("ATSS", "CenterSampling", "TopKIoU"))
    iou = built["IoUAssigner"]
    assert (iou.negative, iou.positive, iou.center_in_box) == (0.3, 0.6, True)
    assert all(built[f"{rule}Assigner"].ranges == ((0, 10), (10, 20)) for rule in ("ScaleRange", "CenterSampling"))


@pytest.mark.parametrize("coding", [BoxCoding, PointCoding])
def test_with_a_pixels_extent_perfect_predictions_still_have_no_box_loss(coding):
    """Assigner, targets and decoded boxes agree on where a box lies."""
    head = make_head(coding(pixel_extent=1))
    grid, predictions = head(features())
    gt_boxes, gt_classes = objects(3, 5)
    matches = head.assigner(grid, [boxes - 0.5 for boxes in gt_boxes])
    boxes, _ = matched_targets(matches, gt_boxes, gt_classes, grid.boxes())
    levels = zip(head.box_coding.encode(boxes, grid.boxes()).split(grid.level_sizes, 1), grid.shapes, strict=True)
    perfect = predictions._replace(deltas=[deltas.unflatten(1, shape).permute(0, 3, 1, 2) for deltas, shape in levels])

    losses = head.losses(grid, perfect, gt_boxes, gt_classes)

    assert (matches >= 0).any() and losses["loss_box"] < 1e-4
    # Positives alone: the other anchors' boxes could suppress an object's.
    positives = zip((matches >= 0).split(grid.level_sizes, 1), grid.shapes, perfect.logits, strict=True)
    likely = [torch.where(mask.unflatten(1, shape)[:, None], 3.0, logits - 9) for mask, shape, logits in positives]
    (found, _) = head.detect(grid, perfect._replace(logits=likely), [(64, 96)] * 2)
    for box in gt_boxes[0][matches[0].unique()[1:]]:
        assert (found.boxes - box.clamp(min=0)).abs().amax(1).min() < 1e-2


def test_a_deformable_tower_ends_with_a_deformable_layer():
    head = make_head(deformable=True)

    assert [type(layer).__name__ for layer in head.class_tower] == ["Conv2d"] * 3 + ["DeformableConv2d"]
    losses = head.losses(*head(features()), *objects(3, 5))
    sum(losses.values()).backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    last = head.box_tower[-1]
    assert last.offset.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert last.conv.weight.std().item() == pytest.approx(0.01, rel=0.2) and (last.offset.bias == 0).any()


@pytest.mark.parametrize("box_coding", [BoxCoding(), PointCoding(), DistributionCoding()])
def test_quality_focal_loss_needs_no_centerness_and_gives_final_scores(box_coding):
    head = make_head(box_coding, class_loss="quality_focal", centerness=False)
    grid, predictions = head(features())

    losses = head.losses(grid, predictions, *objects(3, 5))
    sum(losses.values()).backward()

    of_distributions = {"loss_distribution"} if isinstance(box_coding, DistributionCoding) else set()
    assert set(losses) == {"loss_cls", "loss_box"} | of_distributions
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert head.box_deltas.weight.grad.abs().max() > 0 and head.class_logits.weight.grad.abs().max() > 0
    head.box_selector.score_threshold = 0.0
    (found, _) = head.detect(grid, predictions, [(64, 96)] * 2)
    logits, deltas, _ = predictions.by_anchor(box_coding.num_values)
    assert deltas.shape == (2, len(grid), box_coding.num_values)
    best = logits[0].amax(1).argmax()
    assert found.scores[0].item() == pytest.approx(logits[0, best].max().sigmoid().item())
    box = box_coding.decode(deltas[0, best], grid.boxes()[best])
    torch.testing.assert_close(found.boxes[0], box.clamp(min=0).minimum(torch.tensor([96.0, 64, 96, 64])))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"box_loss": "iou"}, r"box_loss.*'giou' or 'smooth_l1'.*'iou'"),
        ({"class_loss": "hinge"}, r"class_loss.*'focal' or 'quality_focal'.*'hinge'"),
        ({"class_loss": "quality_focal"}, r"class_loss: 'quality_focal' needs centerness=False"),
        (
            {"class_loss": "quality_focal", "centerness": False, "box_loss": "smooth_l1"},
            r"class_loss: 'quality_focal' needs .*box_loss='giou'",
        ),
        ({"box_coding": DistributionCoding()}, r"box_coding: distributions need class_loss='quality_focal'"),
    ],
)
def test_losses_that_do_not_exist_or_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_head(**options)
