"""Distances as the means of distributions, and the loss of distributions, against their formulas."""

import math

import pytest
import torch

from atss.modeling.box_coding import PointCoding
from atss.modeling.distribution_coding import DistributionCoding, distribution_focal_loss

ANCHOR = torch.tensor([[32.0 - 64, 48 - 64, 32 + 64, 48 + 64]])  # 8 strides of 16 around (32, 48)


def test_a_side_lies_at_the_mean_of_its_distribution():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    decoded = DistributionCoding(max_distance=5).decode(logits.view(1, 24), ANCHOR)

    means = []
    for side in logits.tolist():
        total = sum(map(math.exp, side))
        means.append(sum(i * math.exp(x) / total for i, x in enumerate(side)))
    left, top, right, bottom = (16 * mean for mean in means)
    assert decoded[0].tolist() == pytest.approx([32 - left, 48 - top, 32 + right, 48 + bottom])


@pytest.mark.parametrize("pixel_extent", [0, 1])
def test_certain_distributions_decode_to_the_encoded_box(pixel_extent):
    coding, box = DistributionCoding(8.0, pixel_extent, 16), torch.tensor([[0.0, 32, 96, 240]])
    box[:, 2:] += pixel_extent

    distances = coding.encode(box, ANCHOR)

    assert distances.tolist() == PointCoding(8.0, pixel_extent).encode(box, ANCHOR).tolist() == [[2, 1, 4, 12]]
    logits = 1e3 * torch.nn.functional.one_hot(distances.long(), 17).float()
    assert coding.decode(logits.flatten(1), ANCHOR).tolist() == box.tolist()


def test_distances_to_learn_end_where_the_distributions_do():
    box = torch.tensor([[40.0, 48, 1000, 48 + 16 * 4]])  # the point is 8 pixels left of the box

    assert DistributionCoding(max_distance=4).encode(box, ANCHOR)[0].tolist() == pytest.approx([0, 0, 3.9, 3.9])


def test_leading_shape_is_free():
    coding = DistributionCoding(max_distance=4)

    assert coding.decode(torch.zeros(2, 3, 20), ANCHOR).shape == (2, 3, 4)
    assert coding.decode(torch.zeros(20), ANCHOR[0]).tolist() == [0, 16, 64, 80], "two strides where nothing is known"


def test_the_loss_is_the_cross_entropy_of_both_neighbours():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 50, 6, generator=generator, dtype=torch.float64)
    targets = torch.rand(2, 50, generator=generator, dtype=torch.float64) * 4.9
    targets[0, :3] = torch.tensor([0.0, 1.0, 4.9])

    found = distribution_focal_loss(logits, targets)

    expected = torch.empty_like(targets)
    for place, target in zip(torch.cartesian_prod(torch.arange(2), torch.arange(50)), targets.flatten(), strict=True):
        x, y, i = logits[tuple(place)].tolist(), target.item(), int(target)
        total = sum(map(math.exp, x))
        log_s = [math.log(math.exp(value) / total) for value in x]
        expected[tuple(place)] = -((i + 1 - y) * log_s[i] + (y - i) * log_s[i + 1])
    torch.testing.assert_close(found, expected)


def test_the_loss_is_least_for_the_distribution_whose_mean_is_the_target():
    """Section 3: the optimum interpolates between both neighbours."""
    logits = torch.tensor([-1e2, math.log(0.7), math.log(0.3), -1e2], dtype=torch.float64, requires_grad=True)

    distribution_focal_loss(logits, torch.tensor(1.3, dtype=torch.float64)).backward()

    assert logits.grad.abs().max() < 1e-12


def test_gradient_of_the_loss():
    logits = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(3, 4, dtype=torch.float64) * 4.9

    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, targets), logits)
