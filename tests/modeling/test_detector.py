import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.structures import Boxes, Instances

import atss
from atss.modeling import detector


def image(h, w, boxes=(), **more):
    instances = Instances((h, w))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    image = torch.randint(0, 256, (3, h, w), generator=torch.Generator().manual_seed(h)).float()
    return {"image": image, "instances": instances, **more}


def test_registered_under_its_name():
    assert META_ARCH_REGISTRY.get("ATSS") is atss.ATSS
    assert atss.ATSS_HEAD_REGISTRY.get("ATSSHead") is atss.ATSSHead


@pytest.mark.parametrize(
    "images",
    [
        [(64, 96, [[4, 4, 60, 60]]), (96, 64, [[10, 10, 30, 80], [0, 0, 20, 20]])],
        [(64, 96, []), (96, 64, [])],
        [(10, 9, [[1, 1, 8, 9]]), (1, 1, [])],
    ],
    ids=["images of two sizes", "no object at all", "a few pixels"],
)
@pytest.mark.parametrize("coding", ["box", "point"])
def test_training_gives_three_finite_losses_with_finite_gradients(tiny_config, images, coding):
    model = build_model(tiny_config({"MODEL.ATSS.BOX_CODING": coding})).train()

    losses = model([image(*p) for p in images])
    sum(losses.values()).backward()

    assert set(losses) == {"loss_cls", "loss_box", "loss_centerness"}
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_regions_without_loss_come_with_the_images(tiny_config):
    model = build_model(tiny_config()).train()
    boxes, everywhere = [[4, 4, 60, 60]], torch.tensor([[0.0, 0, 96, 96]])

    plain = model([image(64, 96, boxes), image(96, 64, boxes)])
    some = model([image(64, 96, boxes), image(96, 64, boxes, ignore_boxes=everywhere)])

    assert some["loss_cls"] < plain["loss_cls"] and some["loss_box"] == plain["loss_box"]


def test_inference_gives_boxes_in_the_size_asked_for(tiny_config):
    model = build_model(tiny_config({"MODEL.ATSS.SCORE_THRESH_TEST": 0.0})).eval()

    with torch.no_grad():
        (as_is, doubled) = model([image(64, 96), image(64, 96, height=128, width=192)])

    small, large = as_is["instances"], doubled["instances"]
    assert small.image_size == (64, 96) and large.image_size == (128, 192)
    assert 0 < len(small) <= 100
    torch.testing.assert_close(large.pred_boxes.tensor, small.pred_boxes.tensor * 2)
    assert (small.scores[:-1] >= small.scores[1:]).all()
    assert small.pred_classes.dtype == torch.int64


def test_images_are_padded_below_and_to_the_right(tiny_config):
    model = build_model(tiny_config())
    alone = model.preprocess([image(64, 64)]).tensor
    beside = model.preprocess([image(64, 64), image(96, 128)]).tensor

    assert beside.shape == (2, 3, 96, 128)
    assert torch.equal(beside[0, :, :64, :64], alone[0]) and (beside[0, :, 64:] == 0).all()


@pytest.mark.slow
def test_compiled_backbone_and_head_share_a_few_graphs_among_images_of_all_sizes(tiny_config, monkeypatch):
    """In training at many scales; traced as for the compiler, then run by PyTorch."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    traced = torch.compile(detector.network, dynamic=True, backend="eager")
    monkeypatch.setattr(detector, "compiled_network", lambda: traced)
    plain = build_model(tiny_config()).train()
    compiled = build_model(tiny_config({"MODEL.ATSS.COMPILE": True})).train()
    compiled.load_state_dict(plain.state_dict())

    for height in range(256, 640, 64):
        for width in (320, 416):
            batch = [image(height, width, [[4, 4, 60, 60]]), image(height - 40, width, [])]
            assert compiled(batch) == plain(batch)

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    assert not torch._dynamo.utils.counters["graph_break"]
