"""Frozen batch normalization folded into the convolutions before it."""

import copy

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_backbone, build_model
from torch import nn

from atss.modeling import for_inference
from atss.modeling.backbones.frozen_norm import FoldedConv2d, fold_frozen_norms
from tests.helpers import paper_config


def randomized(module):
    """The module with statistics and affine parameters of a trained one in its frozen normalizations."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            for values, center, spread in (
                (norm.weight, 1, 0.2), (norm.bias, 0, 0.2), (norm.running_mean, 0, 0.2), (norm.running_var, 1, 0.3)
            ):  # fmt: skip
                values.copy_(torch.randn(values.shape, generator=generator).abs() * spread + center)
    return module


def layer(**options):
    return randomized(Conv2d(6, 4, 3, padding=1, stride=2, bias=False, norm=FrozenBatchNorm2d(4), **options).double())


@pytest.mark.parametrize("activation", [None, nn.functional.relu])
def test_outputs_and_gradients_stay(activation):
    plain, x = layer(activation=activation), torch.randn(2, 6, 9, 10, dtype=torch.float64)
    folded = fold_frozen_norms(copy.deepcopy(plain))
    assert type(folded) is FoldedConv2d

    found, expected = folded(x), plain(x)
    found.square().sum().backward()
    expected.square().sum().backward()

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(folded.weight.grad, plain.weight.grad, rtol=0, atol=1e-11)
    assert folded.state_dict().keys() == plain.state_dict().keys()


def test_other_layers_stay():
    with_bias = Conv2d(6, 4, 3, norm=FrozenBatchNorm2d(4))
    trained = Conv2d(6, 4, 3, bias=False, norm=nn.BatchNorm2d(4))
    module = fold_frozen_norms(nn.Sequential(with_bias, trained, nn.Conv2d(4, 4, 1)))

    assert [type(child) for child in module] == [Conv2d, Conv2d, nn.Conv2d]


def test_changed_weights_count_at_once():
    folded, x = fold_frozen_norms(layer()), torch.randn(1, 6, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = folded(x)
        folded.norm.bias.add_(1)
        torch.testing.assert_close(folded(x), before + 1)


@pytest.mark.slow
def test_boxes_stay_within_a_thousandth_of_a_pixel():
    """Beside Detectron2's layers, in the order of channels that they use."""
    cfg = paper_config()
    cfg.MODEL.ATSS.NUM_CLASSES, cfg.MODEL.WEIGHTS, cfg.MODEL.ATSS.SCORE_THRESH_TEST = 80, "", 0.0
    torch.manual_seed(0)
    model = randomized(build_model(cfg)).eval()
    plain = copy.deepcopy(model)
    for module in plain.modules():
        module.__class__ = Conv2d if type(module) is FoldedConv2d else type(module)
    plain.memory_format = torch.contiguous_format
    optimized = for_inference(model)
    image = [{"image": torch.randint(256, (3, 203, 317), generator=torch.Generator().manual_seed(0))}]

    with torch.no_grad():
        (expected,), (found,) = plain(image), optimized(image)

    assert not any(isinstance(module, FrozenBatchNorm2d) for module in optimized.modules())
    found, expected = found["instances"], expected["instances"]
    assert len(found) == len(expected) == 100
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)


def test_a_copy_for_inference_leaves_the_model_alone():
    cfg = paper_config(DEPTH=50)
    torch.manual_seed(0)
    backbone = fold_frozen_norms(build_backbone(cfg)).train()
    before = {name: values.clone() for name, values in backbone.state_dict().items()}

    optimized = for_inference(backbone)

    assert backbone.training and not optimized.training
    assert all(torch.equal(values, before[name]) for name, values in backbone.state_dict().items())
    assert any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
