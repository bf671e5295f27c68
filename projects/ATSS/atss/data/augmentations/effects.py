"""Augmentations that leave an image its size: colors, blur, noise, compression, rotation.

Their arguments are those of the transforms of the same kind in torchvision.transforms.v2. All random numbers are
NumPy's, so that they depend on the position of the image alone (`utils.randomness.seeded`). The positional arguments of
a class are those of INPUT.AUGMENTATIONS, and a wrong one raises a ValueError that names it.
"""

from math import cos, pi, sin
from statistics import NormalDist

import cv2
import numpy as np
from detectron2.data import transforms as T

from .arguments import interval, number

# From RGB to lightness and two coordinates of color (YIQ, the television standard NTSC).
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
# Standard normal quantiles of a random byte.
NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
MAX_DEGREES = 30
MAX_JPEG_SIDE = 65_500  # pixels; libjpeg's limit


class Effect(T.Augmentation):
    """Base class: a subclass has a method `draw` (height, width) that returns a transform, used with probability p."""

    input_args = ("shape",)  # the attribute of the input that Detectron2 hands to `get_transform`

    def __init__(self, p):
        self.p = number("p", p, 0, 1)

    def get_transform(self, shape):
        return self.draw(*shape[:2]) if np.random.rand() < self.p else T.NoOpTransform()


class ColorJitter(Effect):
    """Changes brightness, contrast and saturation by factors, and turns the hue, all in one matrix.

    As v2.ColorJitter in this order, except that values are clipped once, at the end, and that hue turns the color in
    the plane of equal lightness and not around the cone of HSV.

    Args:
        brightness, contrast, saturation: b draws a factor from [1 - b, 1 + b]; 0 to 1.
        hue: h draws an angle from [-h, h], as a share of a full turn; 0 to 0.5.
        p: probability.
        format: "BGR" or "RGB", the order of the channels.
    """

    def __init__(self, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02, p=1.0, *, format="BGR"):
        super().__init__(p)
        self.brightness = number("brightness", brightness, 0, 1)
        self.contrast = number("contrast", contrast, 0, 1)
        self.saturation = number("saturation", saturation, 0, 1)
        self.hue = number("hue", hue, 0, 0.5)
        self.format = format

    def draw(self, height, width):
        widths = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        factors = np.random.uniform(-widths, widths) + np.array([1, 1, 1, 0])
        return T.ColorTransform(lambda image: jittered(image, *factors, self.format))


def jittered(image, brightness, contrast, saturation, hue, format):
    """A (H, W, 3) uint8 image with other colors; see `ColorJitter` for the factors, each 1, and hue 0, to keep it."""
    order = slice(None) if format == "RGB" else slice(None, None, -1)
    grey = TO_YIQ[0, order]
    turn = -2 * pi * hue  # from red to green, as in HSV
    chroma = saturation * np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]])
    in_yiq = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), chroma]])
    matrix = contrast * brightness * (np.linalg.inv(TO_YIQ) @ in_yiq @ TO_YIQ)[order, order]
    mean = brightness * np.dot(cv2.mean(image)[:3], grey)
    return cv2.transform(image, np.column_stack([matrix, np.full(3, (1 - contrast) * mean)]))


class Blur(Effect):
    """Gaussian blur.

    Args:
        sigma: [from, to] of the standard deviation in pixels; 0.1 to 10.
        p: probability.
    """

    def __init__(self, sigma=(0.1, 2.0), p=0.2):
        super().__init__(p)
        self.sigma = interval("sigma", sigma, 0.1, 10)

    def draw(self, height, width):
        sigma = np.random.uniform(*self.sigma)
        return T.ColorTransform(lambda image: cv2.GaussianBlur(image, (0, 0), sigma))


class Noise(Effect):
    """Gaussian noise, independent for each pixel and channel.

    Args:
        sigma: [from, to] of the standard deviation, as a share of the range of values (255); 0 to 0.15.
        p: probability.
    """

    def __init__(self, sigma=(0.0, 0.05), p=0.2):
        super().__init__(p)
        self.sigma = interval("sigma", sigma, 0, 0.15)  # so that no noise exceeds 8 bits

    def draw(self, height, width):
        table = np.rint(255 * np.random.uniform(*self.sigma) * NORMAL).astype(np.int8)
        # A byte for each value costs a tenth of a normal number.
        drawn = np.frombuffer(np.random.bytes(height * width * 3), np.uint8).reshape(height, width, 3)
        return T.ColorTransform(lambda image: cv2.add(image, cv2.LUT(drawn, table), dtype=cv2.CV_8U))


class Jpeg(Effect):
    """JPEG compression.

    Args:
        quality: [from, to] of libjpeg's quality; 1 to 100, integers.
        p: probability.
        format: "BGR" or "RGB", the order of the channels.
    """

    def __init__(self, quality=(30, 90), p=0.2, *, format="BGR"):
        super().__init__(p)
        self.quality = interval("quality", quality, 1, 100, int)
        self.format = format

    def draw(self, height, width):
        if max(height, width) > MAX_JPEG_SIDE:
            return T.NoOpTransform()
        quality = np.random.randint(self.quality[0], self.quality[1] + 1)
        return T.ColorTransform(lambda image: compressed(image, quality, self.format))


def compressed(image, quality, format):
    """A (H, W, 3) uint8 image after JPEG compression."""
    image = image if format == "BGR" else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR if format == "BGR" else cv2.IMREAD_COLOR_RGB)


class Rotate(Effect):
    """Rotation around the center; the image keeps its size.

    A box becomes the smallest upright box around its rotated corners, so that it grows: that of a square by 17 % in
    area at 5 degrees, 87 % at 30. Hence the limit.

    Args:
        degrees: d draws an angle from [-d, d]; 0 to 30.
        p: probability.
        fill: 3 values, the color where there was no image, in the order of its channels.
    """

    def __init__(self, degrees=5, p=0.5, *, fill=(0, 0, 0)):
        super().__init__(p)
        self.degrees = number("degrees", degrees, 0, MAX_DEGREES)
        self.fill = fill

    def draw(self, height, width):
        return FilledRotation(height, width, np.random.uniform(-self.degrees, self.degrees), self.fill)


class FilledRotation(T.RotationTransform):
    """Detectron2's rotation, with another color than black where there was no image."""

    def __init__(self, height, width, angle, fill):
        super().__init__(height, width, angle, expand=False)
        self.fill = fill

    def apply_image(self, image, interp=None):
        size = (self.w, self.h)
        return cv2.warpAffine(image, self.rm_image, size, flags=cv2.INTER_LINEAR, borderValue=self.fill)
