"""Which part of an image is seen, and at which size; effects act where the image is smaller."""

import numpy as np
from detectron2.data import transforms as T

from .arguments import interval, pair

MAX_SIDE = 8192  # pixels


class ScaleJitter(T.Augmentation):
    """Large-scale jitter: scales an image by a random factor and cuts a random window out of it if it is larger.

    Ghiasi et al. 2021 (Simple Copy-Paste, arXiv 2012.07177), section 3. Smaller images are not padded here: batches
    are.

    Args:
        scale: [from, to] of the factor, relative to an image that fits the window exactly; 0.05 to 5.
        size: [height, width] of the window, in pixels; None for the size that the image has without scale jitter.
    """

    def __init__(self, scale=(0.1, 2.0), size=None):
        self.scale = interval("scale", scale, 0.05, 5)
        self.size = size if size is None else pair("size", size, 1, MAX_SIDE, int)

    def draw(self, shape, plain):
        """Transforms for an image of a shape (H, W, ...) that would be resized to `plain` (height, width)."""
        window = self.size or plain
        return scaled_window(shape, window, window, np.random.uniform(*self.scale))


def scaled_window(shape, fit, window, factor):
    """Transforms that scale an image to `factor` times the largest size in `fit`, cut to at most `window`.

    Args:
        shape: (H, W, ...) of the image.
        fit, window: (height, width) in pixels.

    Returns:
        A crop at a random place and a resize: the crop comes first, so that no pixel is computed in vain.
    """
    sides, window = shape[:2], [max(1, side) for side in window]
    scale = factor * fitting(sides, fit)
    crop = [min(side, max(1, round(limit / scale))) for side, limit in zip(sides, window, strict=True)]
    new = [max(1, min(limit, round(side * scale))) for side, limit in zip(crop, window, strict=True)]
    y, x = (np.random.randint(side - part + 1) for side, part in zip(sides, crop, strict=True))
    return [T.CropTransform(x, y, crop[1], crop[0]), T.ResizeTransform(*crop, *new)]


def fitting(sides, fit):
    """Factor by which (height, width) is scaled to fit (height, width) exactly."""
    return min(max(1, new) / old for new, old in zip(fit, sides, strict=True))


def plain_size(resize, sides):
    """(height, width) to which a ResizeShortestEdge resizes an image of (height, width)."""
    transform = resize.get_transform(np.broadcast_to(np.uint8(0), sides))
    return (transform.new_h, transform.new_w) if isinstance(transform, T.ResizeTransform) else sides


class Framing(T.Augmentation):
    """Resizes an image, or jitters its scale, and applies effects to it before if that enlarges it, afterwards if not.

    Effects thus cost least, and act on the pixels that the camera saw rather than on interpolated ones. An image that
    is `framed` already receives the effects alone.

    Args:
        resize: Detectron2's ResizeShortestEdge.
        jitter: `ScaleJitter`, or None.
        effects: list of `effects.Effect`.
    """

    def __init__(self, resize, jitter, effects):
        self.resize = resize
        self.jitter = jitter
        self.effects = effects

    def __call__(self, image):
        if image.framed:
            return T.TransformList([effect(image) for effect in self.effects])
        plain = plain_size(self.resize, image.shape[:2])
        crop, resize = self.jitter.draw(image.shape, plain) if self.jitter else whole(image.shape, plain)
        image.transform(crop)
        enlarges = resize.new_h * resize.new_w > resize.h * resize.w
        before = [effect(image) for effect in self.effects if enlarges]
        image.transform(resize)
        return T.TransformList([crop, *before, resize, *(effect(image) for effect in self.effects if not enlarges)])


def whole(shape, size):
    """Transforms that resize an image of a shape (H, W, ...) to a size (height, width): no crop, and a resize."""
    return [T.NoOpTransform(), T.ResizeTransform(*shape[:2], *size)]
