import pickle
from unittest.mock import Mock

import pytest
import torch
from detectron2.modeling import build_model

from atss.checkpoints import Checkpointer, check_weights, is_pretrained
from atss.checkpoints.formats import BOTTOM_UP
from atss.config import load_config
from atss.errors import InputError
from tests.checkpoints import layouts
from tests.helpers import pairs

SMALL = layouts.Architecture()


@pytest.fixture
def saved(tiny_config, tmp_path):
    model = build_model(tiny_config())
    Checkpointer(model, str(tmp_path)).save("model")
    return model, tmp_path / "model.pth"


def refused(model, path, **options):
    with pytest.raises(InputError) as caught:
        Checkpointer(model, **options).load(str(path))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_saved_weights_are_loaded(saved, tiny_config):
    model, path = saved
    other = build_model(tiny_config())

    Checkpointer(other).load(str(path))

    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_a_missing_checkpoint_is_named(saved):
    assert "no such checkpoint" in refused(saved[0], "nowhere.pth")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:10], lambda b: b"", lambda b: b"text" * 9])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_damaged_checkpoint_is_named(saved, damage, suffix):
    model, path = saved
    damaged = path.with_suffix(suffix)
    damaged.write_bytes(damage(path.read_bytes()))

    assert "truncated, or not a checkpoint" in refused(model, damaged, allow_pickle=True)


def test_training_can_start_from_a_backbone_alone_but_evaluation_cannot(saved, tmp_path, tiny_config):
    path = tmp_path / "backbone.pth"
    torch.save({"model": {k: v for k, v in saved[0].state_dict().items() if k.startswith(BOTTOM_UP)}}, path)

    check_weights(tiny_config({"MODEL.WEIGHTS": path}))
    assert "is missing" in refused(build_model(tiny_config()), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"MODEL.RESNETS.NORM": "SyncBN"},
        {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, True, True, True], "MODEL.RESNETS.DEFORM_MODULATED": True},
    ],
    ids=["SyncBN", "deformable"],
)
def test_training_of_the_papers_models_can_start_from_imagenet_weights(tmp_path, settings):
    """MSRA's file has neither the statistics of a normalisation that is not frozen, nor offsets."""
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(layouts.caffe2(SMALL)))
    keys = pairs({**settings, "MODEL.WEIGHTS": path, "MODEL.DEVICE": "cpu"})

    check_weights(load_config("configs/atss_R_50_FPN_1x.yaml", keys))

    with pytest.raises(InputError, match="another model"):
        check_weights(load_config("configs/atss_R_101_FPN_1x.yaml", keys))


def test_imagenet_weights_of_the_model_zoo_load_by_name(saved, tiny_config, tmp_path):
    """Names without prefix in a pickle file, as Detectron2's model zoo has them."""
    model, _ = saved
    path = tmp_path / "R.pkl"
    weights = {k.removeprefix(BOTTOM_UP): v.numpy() for k, v in model.state_dict().items() if k.startswith(BOTTOM_UP)}
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "test", "matching_heuristics": True}))
    other = build_model(tiny_config())

    Checkpointer(other, needed=is_pretrained, allow_pickle=True).load(str(path))

    assert torch.equal(other.backbone.bottom_up.stem.conv1.weight, model.backbone.bottom_up.stem.conv1.weight)


CONVERTIBLE = "a checkpoint of {}; make it one of this project with `atss convert`"
NO_WEIGHTS = "truncated, or not a checkpoint"
REFUSED = {
    "paper": (layouts.paper(SMALL, light=True), CONVERTIBLE.format("the paper's repository")),
    "mmdetection": (layouts.mmdetection(SMALL, light=True), CONVERTIBLE.format("mmdetection")),
    "weights alone": (layouts.mmdetection(SMALL, light=True)["state_dict"], CONVERTIBLE.format("mmdetection")),
    "torchvision": (
        {"model": layouts.filled(layouts.resnet(SMALL), light=True)},
        CONVERTIBLE.format("torchvision's or timm's ResNets"),
    ),
    "another model": ({"model": torch.nn.Linear(2, 2).state_dict()}, "checkpoint of another model"),
    "keys are numbers": ({"model": {1: torch.zeros(2)}}, NO_WEIGHTS),
    "values are texts": ({"model": {"a": "b"}}, NO_WEIGHTS),
    "model is a list": ({"model": []}, NO_WEIGHTS),
    "list": ([], "holds no weights by name, but a list"),
}


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED)
def test_files_that_are_no_checkpoints_of_the_model_are_refused(saved, tmp_path, content, message):
    path = tmp_path / "theirs.pth"
    torch.save(content, path)

    assert message in refused(saved[0], path)
    assert message in refused(saved[0], path, needed=is_pretrained)


@pytest.fixture
def animals(tiny_config, coco_file):
    """Config of the same model for two classes."""
    settings = {"DATASETS.REGISTER": [["two", *coco_file()]], "DATASETS.TRAIN": ("two",), "DATASETS.TEST": ("two",)}
    return lambda **more: tiny_config({**settings, **more})


def test_fine_tuning_keeps_all_that_fits_and_names_what_does_not(saved, animals, caplog):
    theirs, path = saved
    model = build_model(animals())
    start = {key: value.clone() for key, value in model.state_dict().items()}

    Checkpointer(model, needed=is_pretrained, remake_head=True).load(str(path))

    remade = {"head.class_logits.weight", "head.class_logits.bias"}
    for key, value in model.state_dict().items():
        assert torch.equal(value, start[key] if key in remade else theirs.state_dict()[key]), key
    [warning] = [r.getMessage() for r in caplog.records if r.name.startswith("atss.") and r.levelname == "WARNING"]
    assert "2 keys of the head" in warning and all(key in warning for key in remade)


def test_other_classes_are_refused_and_before_training_the_key_for_fine_tuning_is_named(saved, animals):
    cfg = animals(**{"MODEL.WEIGHTS": saved[1]})

    message = refused(build_model(cfg), saved[1])

    assert "2 keys" in message and "head.class_logits.weight is (6, 32, 3, 3), not (2, 32, 3, 3)" in message
    assert "REMAKE_HEAD" not in message, "for evaluation it would be wrong"
    with pytest.raises(InputError, match=r"MODEL\.ATSS\.REMAKE_HEAD True"):
        check_weights(cfg)
    check_weights(animals(**{"MODEL.WEIGHTS": saved[1], "MODEL.ATSS.REMAKE_HEAD": True}))


def test_another_backbone_is_refused_for_fine_tuning_too(saved, tiny_config):
    wider = build_model(tiny_config({"MODEL.RESNETS.RES2_OUT_CHANNELS": 16}))

    assert "backbone.fpn_lateral3" in refused(wider, saved[1], needed=is_pretrained, remake_head=True)


def trainer_of(weights):
    """A trainer's state with averaged weights in it."""
    return Mock(state_dict=lambda: {"iteration": 7, "hooks": {"WeightAverage": {"weights": weights, "steps": 8}}})


def test_averaged_weights_are_loaded_unless_training_resumes(tiny_config, tmp_path):
    model, average, other = (build_model(tiny_config({"SEED": seed})) for seed in range(3))
    Checkpointer(model, str(tmp_path), trainer=trainer_of(average.state_dict())).save("model")

    Checkpointer(other).load(str(tmp_path / "model.pth"))
    assert all(torch.equal(value, average.state_dict()[key]) for key, value in other.state_dict().items())

    trainer = trainer_of({})
    Checkpointer(other, str(tmp_path), trainer=trainer).resume_or_load("", resume=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())
    assert trainer.load_state_dict.call_args.args[0]["hooks"]["WeightAverage"]["steps"] == 8
