import pytest
import torch
from torchvision.ops import batched_nms

from atss.modeling.anchors import AnchorGrid, make_cell_anchors
from atss.modeling.box_coding import BoxCoding
from atss.modeling.head import Predictions
from atss.modeling.inference import BoxSelector, Detections, clip, resize_boxes

STRIDES = [8, 16]
GRID = AnchorGrid([(4, 4), (2, 2)], STRIDES, make_cell_anchors(STRIDES, 1.0))  # anchors as large as cells: no overlap


def predictions(scores, num_classes=2):
    """`scores` maps (anchor, class) to (class score, centerness)."""
    logits = torch.full((1, len(GRID), num_classes), -20.0)
    centerness = torch.zeros(1, len(GRID))
    for (anchor, label), (score, center) in scores.items():
        logits[0, anchor, label], centerness[0, anchor] = torch.tensor([score, center]).logit()
    return Predictions(as_maps(logits), as_maps(torch.zeros(1, len(GRID), 4)), as_maps(centerness[..., None]))


def as_maps(values):
    """(1, R, width) -> (1, width, H, W) per level."""
    levels = zip(values.split(GRID.level_sizes, 1), GRID.shapes, strict=True)
    return [of_level.unflatten(1, shape).permute(0, 3, 1, 2) for of_level, shape in levels]


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

    found = BoxSelector()(GRID, values._replace(deltas=as_maps(boxes)), BoxCoding(), [(32, 32)])[0]

    assert found.classes.tolist() == [0, 1]


@pytest.mark.parametrize("score", [0.9, 0.01])
def test_boxes_that_are_not_numbers_are_dropped_and_change_no_other(score):
    boxes = torch.zeros(1, len(GRID), 4)
    boxes[0, 1, 0] = -9.0  # anchor 1 moves onto anchor 0
    boxes[0, 5] = torch.nan
    values = predictions({(0, 0): (0.9, 0.9), (1, 0): (0.8, 0.9), (5, 0): (score, 0.9)})

    found = BoxSelector()(GRID, values._replace(deltas=as_maps(boxes)), BoxCoding(), [(32, 32)])[0]

    assert len(found.scores) == 1 and found.boxes.isfinite().all()


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


def plain_selection(selector, grid, predictions, box_coding, image_sizes):
    """The same image by image and level by level, with torchvision's suppression per image."""
    logits, deltas, centerness = predictions.by_anchor()
    anchors, detections = grid.boxes(), []
    for i, (height, width) in enumerate(image_sizes):
        boxes, scores, classes, start = [], [], [], 0
        for size in grid.level_sizes:
            level = slice(start, start + size)
            class_scores, start = logits[i, level].sigmoid(), start + size
            anchor, label = (class_scores > selector.score_threshold).nonzero(as_tuple=True)
            products = class_scores[anchor, label]
            keys = products
            if centerness is not None:
                products = products * centerness[i, level][anchor].sigmoid()
                keys = products if selector.topk_by_centerness else keys
            chosen = keys.topk(min(len(keys), selector.topk_per_level)).indices
            boxes.append(box_coding.decode(deltas[i, level][anchor[chosen]], anchors[level][anchor[chosen]]))
            is_root = centerness is not None and selector.score_root
            scores.append(products[chosen].sqrt() if is_root else products[chosen])
            classes.append(label[chosen])
        boxes, scores, classes = map(torch.cat, (boxes, scores, classes))
        whole = boxes
        boxes = clip(boxes, torch.tensor([width, height]))
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        if selector.clip_before_nms:
            whole, boxes, scores, classes = boxes[has_area], boxes[has_area], scores[has_area], classes[has_area]
            has_area = has_area[has_area]
        keep = batched_nms(whole, scores, classes, selector.nms_threshold)[: selector.max_detections]
        keep = keep[has_area[keep]]
        detections.append(Detections(boxes[keep], scores[keep], classes[keep]))
    return detections


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("aspect_ratios", [(1.0,), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"topk_by_centerness": False},
        {"score_root": False},
        {"topk_per_level": 50, "max_detections": 20},
        {"clip_before_nms": False},
    ],
)
def test_a_batch_equals_its_images_one_by_one(seed, aspect_ratios, options):
    generator, strides = torch.Generator().manual_seed(seed), [8, 16, 32]
    shapes = [(20, 28), (10, 14), (5, 7)]
    grid = AnchorGrid(shapes, strides, make_cell_anchors(strides, 4.0, aspect_ratios))

    def maps(width, center, spread):
        sizes = [(3, len(aspect_ratios) * width, *shape) for shape in shapes]
        return [torch.randn(size, generator=generator) * spread + center for size in sizes]

    predicted = Predictions(maps(20, -4, 1.3), maps(4, 0, 0.7), maps(1, 0, 1) if seed else None)
    selector, sizes = BoxSelector(**options), [(160, 224), (150, 200), (9, 224)]

    found = selector(grid, predicted, BoxCoding(), sizes)

    for of_image, expected in zip(found, plain_selection(selector, grid, predicted, BoxCoding(), sizes), strict=True):
        assert torch.equal(of_image.boxes, expected.boxes) and torch.equal(of_image.classes, expected.classes)
        torch.testing.assert_close(of_image.scores, expected.scores, rtol=3e-7, atol=0)
