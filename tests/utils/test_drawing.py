"""Boxes, labels and mosaics."""

import numpy as np
import pytest

from atss.utils.drawing import class_colors, draw_boxes, font, label_image, mosaic, shortened

GROUND = 127
RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(height=400, width=600):
    return np.full((height, width, 3), GROUND, np.uint8)


def has(image, color):
    """(H, W) bool: the pixels of a color."""
    return (image == color).all(-1)


def extent(mask):
    """The box around the pixels of a mask, x1 y1 x2 y2."""
    rows, columns = mask.nonzero()
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_colors_differ_and_repeat_after_the_last():
    colors = class_colors(200)

    assert len(colors) == 200 and len(set(colors[:70])) == 70
    assert colors[:70] == colors[70:140] == class_colors(70)
    assert all(isinstance(value, int) and 0 <= value <= 255 for color in colors for value in color)


def test_a_box_is_outlined_inside_its_pixels():
    image = plain()

    drawn = draw_boxes(image, [[100, 50, 300, 250]], [""], [RED], min_long_side=0)

    red = has(drawn, RED)
    assert extent(red) == [100, 50, 300, 250]
    assert red[50:52, 100:300].all() and red[248:250, 100:300].all(), "two pixels wide"
    assert red[50:250, 100:102].all() and red[50:250, 298:300].all()
    assert not red[52:248, 102:298].any()
    assert (drawn[~red] == GROUND).all() and (image == GROUND).all(), "the input is unchanged"


def test_fractional_boxes_are_rounded_outwards():
    drawn = draw_boxes(plain(), [[100.7, 50.2, 300.1, 250.9]], [""], [RED], min_long_side=0)

    assert extent(has(drawn, RED)) == [100, 50, 301, 251]


def test_lines_grow_with_the_image_unless_it_is_elongated():
    def line(height, width):
        drawn = draw_boxes(plain(height, width), [[0, 0, width, height]], [""], [RED])
        return int(has(drawn, RED)[height // 2, : width // 2].sum())

    assert (line(480, 640), line(1080, 1920), line(1920, 1080)) == (2, 4, 4)
    assert line(100, 8000) == 2


def test_small_images_are_enlarged_with_their_boxes():
    drawn = draw_boxes(plain(80, 100), [[10, 20, 50, 60]], [""], [RED], min_long_side=500)

    assert drawn.shape == (400, 500, 3)
    assert extent(has(drawn, RED)) == [50, 100, 250, 300]
    assert draw_boxes(plain(80, 100), [], [], [], min_long_side=0).shape == (80, 100, 3)


def test_the_first_box_is_on_top():
    boxes = [[100, 100, 300, 300], [100, 100, 300, 300]]

    drawn = draw_boxes(plain(), boxes, ["", ""], [RED, BLUE])

    assert has(drawn, RED).any() and not has(drawn, BLUE).any()


def test_the_label_is_above_its_box():
    without, drawn = (draw_boxes(plain(), [[100, 200, 300, 300]], [label], [RED]) for label in ("", "cat 87%"))

    left, top, right, bottom = extent((without != drawn).any(-1))
    height, width = label_image("cat 87%", 13, RED).shape[:2]
    # The image and its box are enlarged by 640 / 600.
    assert (left, bottom) == (106, 213) and (right - left, bottom - top) == (width, height)
    assert np.array_equal(drawn[top:bottom, left:right], label_image("cat 87%", 13, RED))


@pytest.mark.parametrize("box", [[0, 0, 50, 50], [110, 2, 150, 60], [149, 99, 150, 100], [0, 0, 150, 100]])
def test_labels_are_complete_at_the_edges(box):
    without, drawn = (draw_boxes(plain(100, 150), [box], [label], [RED], min_long_side=0) for label in ("", "cat 87%"))

    label = label_image("cat 87%", 13, RED)
    places = np.lib.stride_tricks.sliding_window_view(drawn, label.shape)[:, :, 0]
    assert (places == label).all((2, 3, 4)).sum() == 1
    assert drawn.shape == without.shape


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ([100, 200, 300, 300], [(100, 185), (100, 200), (100, 300), (100, 285)]),
        ([0, 0, 600, 400], [(0, 0), (0, 385)]),
    ],
)
def test_labels_of_equal_boxes_do_not_hide_each_other(box, corners):
    """They go above the box, inside it at the top, below it, and inside it at the bottom."""
    labels = [f"cat {number}" for number in range(len(corners) + 1)]  # one too many

    drawn = draw_boxes(plain(), [box] * len(labels), labels, [RED] * len(labels), min_long_side=0)

    for text, (x, y) in zip(labels, corners, strict=False):
        label = label_image(text, 13, RED)
        assert np.array_equal(drawn[y : y + label.shape[0], x : x + label.shape[1]], label)


@pytest.mark.parametrize("shape", [(1, 1), (3, 20000), (20000, 3), (2, 2)])
def test_images_too_small_for_a_label(shape):
    height, width = shape
    for min_long_side in (0, 640):
        drawn = draw_boxes(plain(*shape), [[0, 0, width, height]], ["a long label 99%"], [RED], min_long_side)
        assert has(drawn, RED).any()


def test_boxes_outside_the_image_or_without_area():
    boxes = [[-50, -50, -10, -10], [700, 500, 900, 600], [100, 100, 100, 100], [-1e9, 10, 1e9, 20]]

    assert draw_boxes(plain(), boxes, ["x"] * 4, [RED] * 4).shape == (427, 640, 3)


def test_text_is_dark_on_bright_colors_and_bright_on_dark_ones():
    bright, dark = label_image("cat", 20, (255, 255, 0)), label_image("cat", 20, (0, 0, 120))

    assert has(bright, (0, 0, 0)).any() and not has(bright, (255, 255, 255)).any()
    assert has(dark, (255, 255, 255)).any() and not has(dark, (0, 0, 0)).any()


def test_labels_in_other_alphabets():
    for text in ("Straße", "дом", "σπίτι"):
        assert not np.array_equal(label_image(text, 20, RED), label_image("\uffff" * len(text), 20, RED))


def test_every_box_needs_a_label():
    with pytest.raises(ValueError, match="zip"):
        draw_boxes(plain(), [[0, 0, 9, 9]], [], [RED])


def test_a_mosaic_is_filled_row_by_row():
    images = [np.full((60, 90, 3), value, np.uint8) for value in (10, 20, 30)]

    sheet = mosaic(images, columns=2, width=100)

    first, second, third = (extent((abs(sheet.astype(int) - value) <= 1).all(-1)) for value in (10, 20, 30))
    assert first == [8, 8, 108, 75] and second == [116, 8, 216, 75] and third == [8, 83, 108, 150]
    assert sheet.shape == (158, 224, 3) and (sheet[80:, 120:] == 255).all()


def test_images_in_a_mosaic_keep_their_aspect_ratio():
    tall, flat = np.zeros((400, 100, 3), np.uint8), np.zeros((3, 20000, 3), np.uint8)

    sheet = mosaic([tall, flat], columns=1, width=200)

    assert extent((sheet[:208] == 0).all(-1)) == [8, 8, 58, 208]
    assert extent((sheet[208:] == 0).all(-1)) == [8, 8, 208, 9]


def test_titles_are_above_their_images():
    images = [np.zeros((100, 100, 3), np.uint8)] * 2

    sheet = mosaic(images, columns=2, width=100, titles=["one", "a title that is much too long for its image"])

    assert (sheet[32:132, 8:108] == 0).all() and (sheet[32:132, 116:216] == 0).all()
    above = (sheet[:32] < 200).any(-1)
    assert above[:, 8:60].any() and above[:, 116:216].any() and not above[:, 108:116].any() and not above[:, 217:].any()


def test_long_titles_keep_their_end():
    path = "a/very/long/path/to/the/image.jpg"

    for width in (10, 30, 77, 120):
        short = shortened(path, width, font(15))
        assert short[0] == "…" and path.endswith(short[1:]) and font(15).getlength(short) <= max(width, 15)
    assert shortened(path, 1000, font(15)) == path
    assert font(15).getlength(shortened(path, 120, font(15))) > 100, "no more is cut off than necessary"
