"""Operators translated to ONNX compute what PyTorch computes; tests/commands/test_export.py exports a model."""

import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from atss.export import suppress, suppress_op
from atss.export.onnx_file import OPSET, TRANSLATIONS
from atss.export.torch_file import quiet
from tests.export.test_suppression import random_batch


def exported(module, arguments, dynamic_shapes, path):
    """A small module as a function that onnxruntime runs."""
    with quiet():
        program = torch.export.export(module, arguments, dynamic_shapes=dynamic_shapes)
        torch.onnx.export(program, opset_version=OPSET, custom_translation_table=TRANSLATIONS, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *values: torch.from_numpy(
        session.run(None, dict(zip(names, (v.numpy() for v in values), strict=True)))[0]
    )


class Suppression(nn.Module):
    def forward(self, boxes, scores, classes):
        return suppress_op(boxes, scores, classes, 0.5, 4, 5)


@pytest.mark.slow
def test_suppression_is_that_of_pytorch(tmp_path):
    batch, number = torch.export.Dim("batch", min=1), torch.export.Dim("number", min=1)
    shapes = [{0: batch, 1: number}] * 3
    run = exported(Suppression(), random_batch(2, 30, 4), shapes, tmp_path / "nms.onnx")

    for num_images, num_boxes in ((1, 80), (3, 60), (2, 3)):
        boxes, scores, classes = random_batch(num_images, num_boxes, 4, seed=num_boxes)
        scores[:, ::5] = 0
        expected = suppress(boxes, scores, classes, 0.5, 4, 5)
        kept = run(boxes, scores, classes)
        for image in range(num_images):
            for label in range(4):  # the five best of a class at least
                of_class = expected[image] & (classes[image] == label)
                best = of_class.nonzero().squeeze(1)[scores[image][of_class].argsort(descending=True)][:5]
                assert kept[image][best].all()
        assert not (kept & ~expected).any()
    assert not run(boxes, torch.zeros_like(scores), classes).any()


class Deformable(nn.Module):
    def __init__(self, modulated):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 2, 3, 3)), nn.Parameter(torch.randn(6))
        self.modulated = modulated

    def forward(self, x, offset, mask):
        mask = mask if self.modulated else None
        return deform_conv2d(x, offset, self.weight, self.bias, stride=2, padding=(2, 1), dilation=(2, 1), mask=mask)


@pytest.mark.slow
@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_convolutions_are_those_of_torchvision(tmp_path, modulated):
    """Two groups of channels, two of offsets, and all numbers that height and width might exchange different."""
    torch.manual_seed(0)
    module = Deformable(modulated)
    arguments = torch.randn(2, 4, 9, 11), torch.randn(2, 36, 5, 6), torch.rand(2, 18, 5, 6)

    run = exported(module, arguments, None, tmp_path / "deformable.onnx")

    with torch.no_grad():
        expected = module(*arguments)
    torch.testing.assert_close(run(*arguments), expected, atol=1e-4, rtol=1e-4)
