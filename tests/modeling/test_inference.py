import pytest
import torch

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.box_coding import BoxCoding
from atss.modeling.head import Predictions
from atss.modeling.inference import BoxSelector, clip, resize_boxes

STRIDES = [8, 16]
GRID = AnchorGrid([(4, 4), (2, 2)], STRIDES, make_cell_anchors(STRIDES, 1.0))  # anchors as large as cells: no overlap


def predictions(scores, num_classes=2):
    """`scores` maps (anchor, class) to (class score, centerness)."""
    logits = torch.full((1, len(GRID), num_classes), -20.0)
    centerness = torch.zeros(1, len(GRID))
    for (anchor, label), (score, center) in scores.items():
        logits[0, anchor, label], centerness[0, anchor] = torch.tensor([score, center]).logit()
    return Predictions(logits, torch.zeros(1, len(GRID), 4), centerness)


def select(scores, size=(32, 32), **options):
    return BoxSelector(**options)(GRID, predictions(scores), BoxCoding(), [size])[0]


def test_score_is_the_root_of_class_score_times_centerness_best_first():
    found = select({(0, 1): (0.5, 0.5), (6, 0): (0.8, 0.9)})

    assert found.classes.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([(0.8 * 0.9) ** 0.5, 0.5])
    torch.testing.assert_close(found.boxes, GRID.boxes()[[6, 0]])


def test_the_threshold_is_on_the_class_score_alone():
    found = select({(0, 0): (0.06, 0.01), (1, 0): (0.04, 0.99)})

    assert len(found.scores) == 1 and found.scores[0] < 0.05


def test_each_level_gives_its_best():
    scores = {(i, 0): (0.5 + 0.02 * i, 0.5) for i in range(20)}  # 16 anchors on the first level, 4 on the second

    found = select(scores, topk_per_level=3, nms_threshold=1.0)

    torch.testing.assert_close(found.boxes, GRID.boxes()[[19, 18, 17, 15, 14, 13]])


def test_suppression_works_class_by_class():
    boxes = torch.zeros(1, len(GRID), 4)
    boxes[0, 1, 0] = -9.0  # anchor 1 moves by 0.9 cells onto anchor 0
    values = predictions({(0, 0): (0.9, 0.9), (1, 0): (0.8, 0.9), (1, 1): (0.7, 0.9)})

    found = BoxSelector()(GRID, values._replace(deltas=boxes), BoxCoding(), [(32, 32)])[0]

    assert found.classes.tolist() == [0, 1]


def test_no_more_than_max_detections():
    assert len(select({(i, 0): (0.5, 0.5) for i in range(16)}, max_detections=5).scores) == 5


def test_boxes_end_at_the_image():
    assert select({(3, 0): (0.9, 0.9)}, size=(30, 28)).boxes.tolist() == [[24.0, 0.0, 28.0, 8.0]]


def test_an_image_without_any_box():
    found = select({})

    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.classes.shape == (0,)


def test_other_codebases_choose_by_class_score_and_leave_the_product_as_it_is():
    scores = {(0, 0): (0.9, 0.1), (1, 0): (0.5, 0.9)}

    found = select(scores, topk_per_level=1, topk_by_centerness=False, score_root=False)

    assert found.scores.tolist() == pytest.approx([0.9 * 0.1])
    assert select(scores, topk_per_level=1).scores.tolist() == pytest.approx([(0.5 * 0.9) ** 0.5])


def test_boxes_outside_of_the_image_do_not_count_towards_max_detections():
    found = select({(3, 0): (0.9, 0.9), (0, 0): (0.5, 0.5)}, size=(32, 20), max_detections=1)

    assert found.boxes.tolist() == [[0.0, 0.0, 8.0, 8.0]]


def test_a_box_that_ends_with_its_last_pixel_keeps_it():
    """As in the paper's code, where x1 and x2 are pixels, from 0 to 19 here, and boxes at least one pixel wide."""
    first_and_last = torch.tensor([[-3.0, 4, 9, 30], [25, 5, 28, 6]])
    ends = torch.tensor([0, 0, 1, 1])

    clipped = clip(first_and_last + ends, torch.tensor([20, 32]), pixel_extent=1)
    resized = resize_boxes(clipped, (32, 20), (64, 50), pixel_extent=1)

    expected = torch.tensor([[0.0, 4, 9, 30], [19, 5, 19, 6]])
    torch.testing.assert_close(clipped, expected + ends)
    torch.testing.assert_close(resized, expected * torch.tensor([2.5, 2, 2.5, 2]) + ends)


def test_resized_boxes_stay_in_the_image_and_equal_sizes_change_no_bit():
    boxes = torch.rand(1000, 4) * 799.9
    boxes[:, 2:] = torch.tensor([1333.0, 800.0])

    resized = resize_boxes(boxes, (800, 1333), (427, 640))

    assert (resized[:, 2] == 640).all() and (resized[:, 3] == 427).all()
    assert resize_boxes(boxes, (800, 1333), (800, 1333)) is boxes
