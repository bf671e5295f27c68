"""The losses of GFL against their definitions, written out one anchor, class and side at a time."""

import math

import pytest
import torch
from torchvision.ops import box_iou

from atss.modeling.box_coding import BoxCoding, PointCoding
from atss.modeling.distribution_coding import DistributionCoding
from atss.modeling.head import joined
from atss.modeling.losses import giou_loss
from atss.modeling.quality_losses import quality_focal_terms, quality_losses
from tests.modeling.test_fused_losses import STRIDES, Batch

CODINGS = [BoxCoding(), BoxCoding(pixel_extent=1), PointCoding(4.0), DistributionCoding(4.0, 1, max_distance=5)]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.slow, pytest.mark.gpu, NO_GPU])]
FACTORS = 1.5, 0.4  # of box and distribution loss


class QualityBatch(Batch):
    """A `Batch` whose predictions fit a box coding."""

    def __init__(self, coding, num_anchors=1, dtype=torch.float64, **options):
        super().__init__(num_anchors, centerness=False, dtype=dtype, **options)
        self.coding, generator = coding, torch.Generator().manual_seed(2)
        if isinstance(coding, DistributionCoding):
            shapes = [(len(deltas), coding.num_values, *deltas.shape[2:]) for deltas in self.deltas]
            random = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
            self.deltas = [values.to(dtype).requires_grad_() for values in random]

    def losses(self, beta=2.0, device="cpu"):
        logits, deltas, _, *others = self.on(device)
        found = quality_losses(logits, deltas, *others, self.coding, beta, *FACTORS)
        return {name: loss.cpu() for name, loss in found.items()}

    def plain(self, beta=2.0):
        num_anchors, anchors = self.grid.num_per_cell, self.anchors
        scores = joined(self.logits, num_anchors).sigmoid().tolist()
        deltas = joined(self.deltas, num_anchors).detach()
        of_class = of_box = of_sides = number = weight_sum = 0.0
        for n, r in torch.cartesian_prod(*map(torch.arange, self.matches.shape)).tolist():
            match, quality, label = self.matches[n, r].item(), 0.0, None
            if match >= 0:
                box, label = self.gt_boxes[n][match].to(anchors), self.gt_classes[n][match].item()
                decoded = self.coding.decode(deltas[n, r], anchors[r])
                quality = box_iou(decoded[None], box[None]).item()
                weight = max(scores[n][r])
                number, weight_sum = number + 1, weight_sum + weight
                of_box += weight * giou_loss(decoded, box).item()
                if isinstance(self.coding, DistributionCoding):
                    targets = self.coding.encode(box, anchors[r]).tolist()
                    for y, side in zip(targets, deltas[n, r].view(4, -1).softmax(-1).tolist(), strict=True):
                        i = int(y)
                        loss = (i + 1 - y) * math.log(side[i]) + (y - i) * math.log(side[i + 1])
                        of_sides -= weight * loss / 4
            for c, p in enumerate(scores[n][r]):
                if match > -2:
                    y = quality if c == label else 0.0
                    of_class -= abs(y - p) ** beta * (y * math.log(p) + (1 - y) * math.log(1 - p))
        losses = {"loss_cls": of_class / max(number, 1), "loss_box": FACTORS[0] * of_box / max(weight_sum, 1)}
        if isinstance(self.coding, DistributionCoding):
            losses["loss_distribution"] = FACTORS[1] * of_sides / max(weight_sum, 1)
        return losses


VARIANTS = [(1, coding) for coding in CODINGS] + [(3, coding) for coding in CODINGS if isinstance(coding, BoxCoding)]


@pytest.mark.parametrize("quality", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_quality_focal_loss(quality, beta):
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)

    found, _ = quality_focal_terms(logits, quality, beta)

    for x, loss in zip(logits.tolist(), found.tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        expected = -(abs(quality - p) ** beta) * (quality * math.log(p) + (1 - quality) * math.log(1 - p))
        assert loss == pytest.approx(expected, rel=1e-9)


def test_a_score_that_is_the_quality_has_no_loss_and_no_gradient():
    quality = torch.tensor([0.2, 0.7], dtype=torch.float64)

    loss, slope = quality_focal_terms(quality.logit(), quality)

    assert loss.abs().max() < 1e-12 and slope.abs().max() < 1e-12


@pytest.mark.parametrize("num_anchors, coding", VARIANTS)
@pytest.mark.parametrize("beta", [2.0, 1.5])
@pytest.mark.parametrize("device", DEVICES)
def test_losses_are_their_definitions(num_anchors, coding, beta, device):
    batch = QualityBatch(coding, num_anchors)

    found, expected = batch.losses(beta, device), batch.plain(beta)

    assert (batch.matches >= 0).sum() > 20 and ((batch.matches == -2).any() or num_anchors == 1)
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num_anchors, coding", VARIANTS)
def test_gradients_are_those_of_finite_differences(num_anchors, coding):
    """Targets and weights are constants: the class loss is a function of the scores, the others of the boxes."""
    batch = QualityBatch(coding, num_anchors, shape=(3, 4), num_objects=(2, 0))
    logits, deltas = batch.logits, batch.deltas

    def of_logits(*maps):
        batch.logits = maps
        return batch.losses()["loss_cls"]

    def of_deltas(*maps):
        batch.logits, batch.deltas = logits, maps
        losses = batch.losses()
        return tuple(loss for name, loss in losses.items() if name != "loss_cls")

    assert torch.autograd.gradcheck(of_logits, logits, fast_mode=True)
    assert torch.autograd.gradcheck(of_deltas, deltas, fast_mode=True)
    of_class = torch.autograd.grad(batch.losses()["loss_cls"], deltas, allow_unused=True)
    assert of_class == (None,) * len(STRIDES), "the target does not pull at the box"


def gradients(batch, losses):
    return torch.autograd.grad(sum(losses.values()), [*batch.logits, *batch.deltas])


@pytest.mark.parametrize("num_anchors, coding", VARIANTS)
def test_channels_last_predictions_have_gradients_in_their_format(num_anchors, coding):
    batch = QualityBatch(coding, num_anchors, torch.float32)
    expected = batch.losses()
    expected_gradients = gradients(batch, expected)
    for maps in (batch.logits, batch.deltas):
        maps[:] = [values.detach().to(memory_format=torch.channels_last).requires_grad_() for values in maps]

    found = batch.losses()

    torch.testing.assert_close(found, expected)
    for gradient, other in zip(gradients(batch, found), expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other)
        assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_have_losses_in_full_precision_and_gradients_in_theirs(dtype):
    batch = QualityBatch(CODINGS[-1], dtype=dtype)
    losses = batch.losses()
    in_half = gradients(batch, losses)
    for maps in (batch.logits, batch.deltas):
        maps[:] = [values.detach().float().requires_grad_() for values in maps]
    expected = batch.losses()

    assert all(loss.dtype == torch.float32 for loss in losses.values())
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=0)
    for gradient, in_float in zip(in_half, gradients(batch, expected), strict=True):
        torch.testing.assert_close(gradient, in_float.to(dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("num_objects", [(0,), (0, 0), (1000, 1)])
def test_losses_and_gradients_are_finite(num_objects, logit, device):
    batch = QualityBatch(CODINGS[-1], dtype=torch.float32, num_objects=num_objects)
    batch.logits = [torch.full_like(logits, logit).requires_grad_() for logits in batch.logits]

    losses = batch.losses(device=device)

    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(batch, losses))
    if not any(num_objects):
        assert losses["loss_box"] == 0 and losses["loss_distribution"] == 0


def test_ignored_anchors_give_no_loss():
    batch = QualityBatch(CODINGS[-1])
    batch.matches = torch.full_like(batch.matches, -2)

    losses = batch.losses()

    assert all(loss == 0 for loss in losses.values())
    assert all((gradient == 0).all() for gradient in gradients(batch, losses))
