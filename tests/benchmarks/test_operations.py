"""The counts of operations: exact, so that a change that costs more shows here."""

from types import SimpleNamespace

import pytest
import torch

from operations import Count, count


def counts(images, classes=80):
    settings = SimpleNamespace(images=images, size=(256, 320), objects=5, classes=classes, device="cpu")
    return count("atss", settings)


def test_operations_bytes_and_waits():
    with Count() as counted:
        x = torch.ones(3, 4)  # written
        y = x.t().expand(2, 4, 3) + 1  # views are not counted, expanded tensors are read once
        _ = y.nonzero(), y[x.t().bool().expand(2, 4, 3)]

    assert counted.operations == 5 and counted.waits == 2
    assert counted.bytes >= 4 * (12 + 12 + 24)


@pytest.mark.slow
def test_operations_and_waits_do_not_depend_on_the_number_of_images():
    for images in (1, 3):
        _, losses, backward, post_processing = counts(images)

        assert (losses.operations, losses.waits) == (11, 0)
        assert (backward.operations, backward.waits) == (15, 0)
        assert (post_processing.operations, post_processing.waits) == (119, 2)


@pytest.mark.slow
def test_losses_read_the_logits_once_and_write_their_gradient_once():
    few, many = counts(2, 80), counts(2, 160)
    anchors = 2 * sum((256 // stride) * -(-320 // stride) for stride in (8, 16, 32, 64, 128))

    more = [many[part].bytes - few[part].bytes for part in (1, 2)]

    assert more == [anchors * 80 * 4 * 2] * 2, "the backward pass reads and writes the gradient"
