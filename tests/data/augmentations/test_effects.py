"""Colors, blur, noise, compression and rotation, beside torchvision.transforms.v2 where it has the same."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as v2

from atss.data.augmentations import effects
from atss.data.augmentations.effects import Blur, ColorJitter, Jpeg, Noise, Rotate, compressed, jittered
from tests.data.test_mapper import photograph

ALL = [ColorJitter(), Blur(p=1), Noise(p=1), Jpeg(p=1), Rotate(p=1)]


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


def mid_tones(low=70, high=180):
    """An image (H, W, 3), RGB, that no change of colors below clips."""
    return (low + (high - low) / 255 * np.asarray(photograph(61, 43)).astype(float)).round().astype(np.uint8)


def tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def array(image):
    return image.permute(1, 2, 0).numpy()


def apply(effect, image):
    return effect.get_transform(image.shape).apply_image(image)


@pytest.mark.parametrize(
    "factors, change",
    [
        ((1.3, 1, 1, 0), lambda image: v2.adjust_brightness(image, 1.3)),
        ((1, 0.6, 1, 0), lambda image: v2.adjust_contrast(image, 0.6)),
        ((1, 1, 1.3, 0), lambda image: v2.adjust_saturation(image, 1.3)),
        ((1, 1, 0, 0), lambda image: v2.adjust_saturation(image, 0)),
        (
            (1.1, 0.8, 0.7, 0),
            lambda image: v2.adjust_saturation(v2.adjust_contrast(v2.adjust_brightness(image, 1.1), 0.8), 0.7),
        ),
    ],
)
@pytest.mark.parametrize("format", ["RGB", "BGR"])
def test_color_jitter_is_torchvisions_in_one_matrix(factors, change, format):
    image = mid_tones()
    order = slice(None, None, 1 if format == "RGB" else -1)

    found = jittered(image[..., order].copy(), *factors, format)[..., order]

    expected = 255 * array(change(tensor(image) / 255))  # of floats, as it rounds bytes down after each step
    assert np.abs(found - expected).max() < 0.7  # rounding, and three digits of weights


def test_a_turned_hue_keeps_greys_and_lightness_and_moves_colors_as_torchvision_does():
    greys = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    reds = np.full((1, 1, 3), (170, 110, 110), np.uint8)

    assert np.array_equal(jittered(greys, 1, 1, 1, 0.1, "RGB"), greys)
    for turn, strongest in ((1 / 3, 1), (-1 / 3, 2)):
        turned, theirs = jittered(reds, 1, 1, 1, turn, "RGB"), array(v2.adjust_hue(tensor(reds), turn))
        assert turned.argmax() == theirs.argmax() == strongest
        assert np.abs((turned - reds.astype(float)) @ effects.TO_YIQ[0]).max() < 1


def test_no_change_of_colors_is_none():
    image = np.asarray(photograph(61, 43))

    assert np.array_equal(apply(ColorJitter(0, 0, 0, 0), image), image)
    assert not np.array_equal(apply(ColorJitter(), image), image)


def test_blur_is_torchvisions():
    image = np.asarray(photograph(61, 43))

    theirs = array(v2.gaussian_blur(tensor(image), [13, 13], [2.0, 2.0]))

    assert np.abs(apply(Blur((2, 2), 1), image).astype(int) - theirs).max() <= 2


def test_noise_is_normal_and_independent_for_pixels_and_channels():
    grey = np.full((200, 300, 3), 128, np.uint8)

    noise = apply(Noise((0.05, 0.05), 1), grey).astype(float) - 128

    assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(0.05 * 255, rel=0.03)
    assert (np.abs(noise) < 0.05 * 255).mean() == pytest.approx(0.683, abs=0.03)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.02
    assert np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_compression_loses_more_at_lower_quality_and_is_the_same_in_both_orders_of_channels():
    image = np.asarray(photograph(61, 43))
    losses = [np.abs(compressed(image, quality, "RGB").astype(int) - image).mean() for quality in (10, 50, 95)]

    assert losses[0] > losses[1] > losses[2] > 0
    assert np.array_equal(compressed(image[..., ::-1].copy(), 30, "BGR")[..., ::-1], compressed(image, 30, "RGB"))


def test_a_box_follows_a_rotation_as_the_smallest_around_its_rotated_corners():
    image = np.full((80, 100, 3), 0, np.uint8)
    image[30:50, 20:60] = 255
    rotation = Rotate(20, 1, fill=(9, 8, 7)).get_transform(image.shape)

    rotated = rotation.apply_image(image)
    ((x1, y1, x2, y2),) = rotation.apply_box(np.array([[20.0, 30, 60, 50]]))

    rows, columns = np.nonzero(rotated[..., 0] > 100)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == pytest.approx([x1, y1, x2, y2], abs=1.5)
    assert 1 < abs(rotation.angle) < 20 and (x2 - x1) * (y2 - y1) > 40 * 20
    assert rotated[0, 0].tolist() == [9, 8, 7], "no image in the corner"


def test_effects_are_drawn_with_their_probability():
    drawn = [isinstance(Blur(p=0.3).get_transform((9, 9, 3)), effects.T.ColorTransform) for _ in range(2000)]

    assert np.mean(drawn) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (40, 1, 3), (3, 2, 3)])
@pytest.mark.parametrize("effect", ALL, ids=lambda effect: type(effect).__name__)
def test_images_of_a_few_pixels(effect, shape):
    image = np.random.randint(0, 256, shape, np.uint8)
    before = image.copy()

    found = apply(effect, image)

    assert found.shape == shape and found.dtype == np.uint8 and np.array_equal(image, before)


def test_an_image_longer_than_a_jpeg_can_be_is_left_as_it_is():
    image = np.zeros((1, effects.MAX_JPEG_SIDE + 1, 3), np.uint8)

    assert np.array_equal(apply(Jpeg(p=1), image), image)
    assert apply(Jpeg(p=1), image[:, :-1]).shape == (1, effects.MAX_JPEG_SIDE, 3)


def test_all_random_numbers_are_numpys():
    image, threads = np.asarray(photograph(61, 43)), cv2.getNumThreads()
    found = []
    for other_seed in (1, 2):
        torch.manual_seed(other_seed), cv2.setRNGSeed(other_seed), cv2.setNumThreads(other_seed)
        np.random.seed(7)
        found.append([apply(effect, image) for effect in ALL])
    cv2.setNumThreads(threads)

    assert all(np.array_equal(x, y) for x, y in zip(*found, strict=True))
