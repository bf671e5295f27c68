"""The fused losses against the definitions in `losses`, values and gradients, for both implementations."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from atss.modeling import AnchorGrid, make_cell_anchors
from atss.modeling.assigners import ATSSAssigner, IoUAssigner
from atss.modeling.box_coding import BoxCoding, PointCoding
from atss.modeling.fused_losses import fused_losses
from atss.modeling.head import joined
from atss.modeling.losses import centerness_targets, focal_loss, giou_loss, smooth_l1_loss
from tests.helpers import compiled_kernels

NUM_CLASSES, BOX_LOSS_WEIGHT = 7, 1.5
STRIDES = (8, 16, 32)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = [pytest.mark.slow, pytest.mark.gpu]
BACKENDS = ["torch", pytest.param("triton", marks=ON_GPU)]
# (A, box coding, smooth L1 beta, centerness)
VARIANTS = [
    (len(ratios), coding, beta, centerness)
    for ratios, coding, beta, centerness in itertools.product(
        [(1.0,), (0.5, 1.0, 2.0)],
        [BoxCoding(), BoxCoding(pixel_extent=1), PointCoding(4.0), PointCoding(4.0, pixel_extent=1)],
        [None, 0.11],
        [True, False],
    )
    if len(ratios) == 1 or isinstance(coding, BoxCoding)
]


class Batch:
    """Three images of random predictions, the second without objects."""

    def __init__(self, num_anchors=1, centerness=True, dtype=torch.float64, shape=(9, 13), num_objects=(6, 0, 9),
                 num_classes=NUM_CLASSES):  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        height, width = shape
        shapes = [(-(-height * 8 // stride), -(-width * 8 // stride)) for stride in STRIDES]
        ratios = [1.0] if num_anchors == 1 else [0.5, 1.0, 2.0]
        self.grid = AnchorGrid(shapes, STRIDES, make_cell_anchors(STRIDES, 4, ratios, 1))
        self.gt_boxes, self.gt_classes = [], []
        for number in num_objects:
            centers = torch.rand(number, 2, generator=generator) * torch.tensor([width, height]) * 8
            half = torch.rand(number, 2, generator=generator) * 50 + 4
            self.gt_boxes.append(torch.cat([centers - half, centers + half], 1))
            self.gt_classes.append(torch.randint(num_classes, (number,), generator=generator))

        def maps(width, center, spread):
            sizes = [(len(num_objects), num_anchors * width, *shape) for shape in shapes]
            random = [torch.randn(size, generator=generator, dtype=torch.float64) * spread + center for size in sizes]
            return [values.to(dtype).requires_grad_() for values in random]

        self.logits, self.deltas = maps(num_classes, -2, 3), maps(4, 0.5, 1)
        self.centerness = maps(1, 0, 1) if centerness else None
        assigner = ATSSAssigner() if num_anchors == 1 else IoUAssigner()  # which ignores some anchors
        self.matches = assigner(self.grid, self.gt_boxes)
        self.anchors = self.grid.boxes().to(dtype)

    def predictions(self):
        return [*self.logits, *self.deltas, *(self.centerness or ())]

    def fused(self, *args, **options):
        sums = self.fused_sums(*args, **options)
        return sums, self.gradient(sums)

    def fused_sums(self, box_coding, beta=None, alpha=0.25, gamma=2.0, backend="torch"):
        """On a GPU where there is one for the kernel."""
        sums = fused_losses(
            *self.on(DEVICE if backend == "triton" else "cpu"), box_coding, alpha, gamma, beta, BOX_LOSS_WEIGHT, backend
        )
        return torch.cat(sums).cpu()

    def on(self, device):
        """The first arguments of `fused_losses`."""
        maps = ([v.to(device) for v in values] if values else None for values in self.predictions_by_kind())
        boxes, classes = ([v.to(device) for v in values] for values in (self.gt_boxes, self.gt_classes))
        anchors = [anchors.to(device) for anchors in self.grid.cell_anchors]
        grid = AnchorGrid(self.grid.shapes, self.grid.strides, anchors, self.grid.offset)
        return *maps, self.matches.to(device), boxes, classes, grid

    def predictions_by_kind(self):
        return self.logits, self.deltas, self.centerness

    def plain(self, box_coding, beta=None, alpha=0.25, gamma=2.0):
        """The same by the functions of `losses`."""
        logits, deltas = (joined(maps, self.deltas[0].shape[1] // 4) for maps in (self.logits, self.deltas))
        anchors, positive = self.anchors, self.matches >= 0
        boxes, classes = matched_targets(self.matches, self.gt_boxes, self.gt_classes, anchors)
        weights, loss_centerness = torch.ones_like(positive, dtype=anchors.dtype), anchors.new_zeros(())
        if self.centerness:
            weights = centerness_targets((anchors[:, :2] + anchors[:, 2:] + box_coding.pixel_extent) / 2, boxes)
            centerness = joined(self.centerness, self.deltas[0].shape[1] // 4).squeeze(-1)
            loss = F.binary_cross_entropy_with_logits(centerness, weights, reduction="none")
            loss_centerness = (loss * positive).sum()
        if beta is None:
            loss_box = giou_loss(box_coding.decode(deltas, anchors), boxes)
        else:
            loss_box = smooth_l1_loss(deltas, box_coding.encode(boxes, anchors), beta)
        sums = torch.stack([
            focal_loss(logits, classes, positive, self.matches != -2, alpha, gamma),
            (loss_box * weights * positive).sum() * BOX_LOSS_WEIGHT,
            loss_centerness,
            positive.sum(),
            (weights * positive).sum(),
            positive.sum(),
        ])  # fmt: skip
        return sums, self.gradient(sums)

    def gradient(self, sums):
        """Of the three losses with different factors."""
        factors = sums.new_tensor([0.5, 2.0, 3.0])
        return torch.autograd.grad(sums[:3] @ factors, self.predictions())


def matched_targets(matches, gt_boxes, gt_classes, anchors):
    """Box (N, R, 4) and class (N, R) of every anchor's match; the anchor (R, 4) itself and class 0 without a match."""
    boxes, classes = anchors.repeat(len(matches), 1, 1), torch.zeros_like(matches)
    for n in range(len(matches)):
        positive = matches[n] >= 0
        boxes[n, positive] = gt_boxes[n][matches[n, positive]].to(boxes.dtype)
        classes[n, positive] = gt_classes[n][matches[n, positive]]
    return boxes, classes


def assert_equal(found, expected, tolerance):
    """Sums relative to themselves, gradients relative to the largest of their feature map."""
    (sums, gradients), (expected_sums, expected_gradients) = found, expected
    torch.testing.assert_close(sums, expected_sums, rtol=tolerance, atol=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        largest = expected_gradient.abs().max().item()
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("num_anchors, box_coding, beta, centerness", VARIANTS)
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.4, 1.5)])
def test_float64(num_anchors, box_coding, beta, centerness, alpha, gamma):
    batch = Batch(num_anchors, centerness)

    assert_equal(batch.fused(box_coding, beta, alpha, gamma), batch.plain(box_coding, beta, alpha, gamma), 1e-12)


@pytest.mark.parametrize("backend, tolerance", [("torch", 1e-6), pytest.param("triton", 3e-6, marks=ON_GPU)])
@pytest.mark.parametrize("num_anchors, box_coding, beta, centerness", VARIANTS)
def test_float32(num_anchors, box_coding, beta, centerness, backend, tolerance):
    batch = Batch(num_anchors, centerness, torch.float32)

    assert_equal(batch.fused(box_coding, beta, backend=backend), batch.plain(box_coding, beta), tolerance)


@pytest.mark.parametrize("backend, tolerance", [("torch", 1e-6), pytest.param("triton", 3e-6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("num_anchors, num_classes", [(1, 7), (3, 7), (1, 1)])
def test_channels_last_predictions_have_gradients_in_their_format(num_anchors, num_classes, backend, tolerance):
    batch = Batch(num_anchors, dtype=torch.float32, num_classes=num_classes)
    expected = batch.plain(BoxCoding())
    for maps in (batch.logits, batch.deltas, batch.centerness):
        maps[:] = [values.detach().to(memory_format=torch.channels_last).requires_grad_() for values in maps]

    sums, gradients = batch.fused(BoxCoding(), backend=backend)

    assert_equal((sums, gradients), expected, tolerance)
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in gradients)


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_of_both_memory_formats(backend):
    batch = Batch(dtype=torch.float32)
    expected = batch.plain(BoxCoding())
    batch.logits[1] = batch.logits[1].detach().to(memory_format=torch.channels_last).requires_grad_()
    batch.deltas[0] = batch.deltas[0].detach().mT.contiguous().mT.requires_grad_()

    assert_equal(batch.fused(BoxCoding(), backend=backend), expected, 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num_anchors, box_coding, beta, centerness", VARIANTS)
def test_gradients_are_those_of_finite_differences(num_anchors, box_coding, beta, centerness):
    batch = Batch(num_anchors, centerness, shape=(3, 4), num_objects=(2, 0))

    def losses(*maps):
        num_levels = len(STRIDES)
        batch.logits, batch.deltas = maps[:num_levels], maps[num_levels : 2 * num_levels]
        batch.centerness = maps[2 * num_levels :] or None
        return batch.fused_sums(box_coding, beta)[:3]

    assert torch.autograd.gradcheck(losses, batch.predictions(), fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("logit", [-1e4, -100.0, 100.0, 1e4])
def test_extreme_logits_have_finite_losses_and_gradients(backend, logit):
    batch = Batch(dtype=torch.float32)
    batch.logits = [torch.full_like(logits, logit).requires_grad_() for logits in batch.logits]

    sums, gradients = batch.fused(BoxCoding(), backend=backend)

    assert sums.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)
    torch.testing.assert_close(sums, batch.plain(BoxCoding())[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions_have_losses_in_full_precision_and_gradients_in_theirs(backend, dtype):
    batch = Batch(dtype=dtype)
    sums, gradients = batch.fused(BoxCoding(), backend=backend)
    for maps in (batch.logits, batch.deltas, batch.centerness):
        maps[:] = [values.detach().float().requires_grad_() for values in maps]
    expected, expected_gradients = batch.fused(BoxCoding(), backend=backend)

    assert sums.dtype == torch.float32 and all(gradient.dtype == dtype for gradient in gradients)
    torch.testing.assert_close(sums, expected, rtol=1e-6, atol=0)
    for gradient, in_float in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, in_float.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_objects", [(0,), (0, 0), (5000,)])
def test_no_objects_and_thousands_of_objects(backend, num_objects):
    batch = Batch(dtype=torch.float32, num_objects=num_objects)

    assert_equal(batch.fused(BoxCoding(), backend=backend), batch.plain(BoxCoding()), 3e-6)


def test_levels_of_one_cell():
    batch = Batch(shape=(1, 1), num_objects=(3,))

    assert_equal(batch.fused(BoxCoding()), batch.plain(BoxCoding()), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_gpus_once(capability):
    """Other numbers of objects and other sizes of images need no other kernels."""
    *first, add_losses, scale = compiled_kernels(capability, "losses")

    assert [add_losses["name"], scale["name"]] == ["add_losses", "scale"]
    assert first == [add_losses, scale]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_nothing_waits_for_the_gpu():
    *maps, matches, gt_boxes, gt_classes, grid = Batch(dtype=torch.float32).on(DEVICE)
    maps = [[values.detach().requires_grad_() for values in of_kind] for of_kind in maps]  # leaves on the GPU
    arguments = *maps, matches, gt_boxes, gt_classes, grid
    fused_losses(*arguments, BoxCoding())
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses, _ = fused_losses(*arguments, BoxCoding())
        losses.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
