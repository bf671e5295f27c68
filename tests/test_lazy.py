"""The LazyConfigs are twins of the yaml configs: the same model, optimizer, schedule and data."""

import re

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.solver import LRMultiplier
from detectron2.structures import Boxes, Instances
from detectron2.utils.env import seed_all_rng
from omegaconf import OmegaConf
from torch import nn

from atss import add_atss_config
from atss.assigners import backends
from atss.data import loaders, register_coco_format
from atss.errors import InputError
from atss.evaluation import build_coco_evaluator
from atss.lazy import build, load_lazy_config, read_data
from atss.trainer import Trainer
from conftest import ROOT

NAMES = sorted(path.stem for path in ROOT.glob("configs/atss_*.yaml"))
DEMO = "configs/lazy/atss_R_10_FPN_demo.py"


@pytest.fixture(params=NAMES)
def twins(request):
    return load_twins(request.param)


def load_twins(name):
    """The config of the yaml file and that of the Python file of a name, both for the CPU."""
    cfg = get_cfg()
    add_atss_config(cfg)
    cfg.merge_from_file(str(ROOT / f"configs/{name}.yaml"), allow_unsafe=False)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ATSS.NUM_CLASSES = 80 if "coco" in cfg.DATASETS.TRAIN[0] else 6
    return cfg, load_lazy_config(str(ROOT / f"configs/lazy/{name}.py"), ["train.device=cpu"])


def test_every_yaml_config_has_a_twin():
    assert sorted(path.stem for path in ROOT.glob("configs/lazy/*.py")) == NAMES
    assert len(NAMES) == 11


@pytest.fixture
def no_random_weights(monkeypatch):
    """Parameters stay as they are in memory: large models are built in no time."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def test_model_and_optimizer(twins, no_random_weights):
    cfg, lazy = twins
    ours, theirs = instantiate(lazy.model), build_model(cfg)

    assert [(name, p.shape, p.requires_grad) for name, p in ours.named_parameters()] == [
        (name, p.shape, p.requires_grad) for name, p in theirs.named_parameters()
    ]
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for (name, buffer), (_, expected) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert torch.equal(buffer, expected), name
    parts = dict(theirs.named_modules())
    for name, module in ours.named_modules():
        assert attributes(module) == attributes(parts[name]), name

    lazy.optimizer.params.model = ours
    assert settings(instantiate(lazy.optimizer), ours) == settings(Trainer.build_optimizer(cfg, theirs), theirs)


def attributes(thing):
    """What a module or another object of the package holds besides parameters and submodules, comparable."""
    known = vars(nn.Module()).keys() if isinstance(thing, nn.Module) else ()
    return type(thing), {name: comparable(value) for name, value in vars(thing).items() if name not in known}


def comparable(value):
    if isinstance(value, nn.Module):
        return type(value)
    if isinstance(value, (list, tuple)) or OmegaConf.is_list(value):
        return [comparable(x) for x in value]
    return attributes(value) if type(value).__module__.startswith("atss") else value


def settings(optimizer, model):
    """Type of an optimizer, and its settings of every parameter."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    how = ("params", "foreach", "fused")  # ways to compute the same
    return type(optimizer), {
        names[parameter]: {key: value for key, value in group.items() if key not in how}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", ["atss_R_10_FPN_demo", "atss_R_10_FPN_study", "atss_R_50_FPN_1x_dcnv2"])
def test_initial_weights_losses_and_detections(name):
    cfg, lazy = load_twins(name)
    built = []
    for make in (lambda: instantiate(lazy.model), lambda: build_model(cfg)):
        torch.manual_seed(3)
        model = make()
        model.head.box_selector.score_threshold = 0.0
        built.append(model)
    weights = [model.state_dict() for model in built]
    assert all(torch.equal(weight, weights[1][key]) for key, weight in weights[0].items())

    random = torch.Generator().manual_seed(0)
    objects = Instances((96, 64), gt_boxes=Boxes(torch.tensor([[5.0, 8, 60, 50]])), gt_classes=torch.tensor([4]))
    batch = [{"image": torch.randint(0, 256, (3, 96, 64), generator=random), "instances": objects} for _ in range(2)]
    ours, theirs = (model.train()(batch) for model in built)
    assert ours == theirs and len(ours) == 3
    with torch.no_grad():
        ours, theirs = (model.eval()(batch[:1])[0]["instances"] for model in built)
    assert len(ours) == 100 and torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.scores, theirs.scores) and torch.equal(ours.pred_classes, theirs.pred_classes)


def test_schedule(twins):
    cfg, lazy = twins
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    theirs = Trainer.build_lr_scheduler(cfg, optimizer)
    ours = LRMultiplier(optimizer, instantiate(lazy.lr_multiplier), lazy.train.max_iter)
    changes = (0, cfg.SOLVER.WARMUP_ITERS, *cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER)
    iterations = {*range(0, cfg.SOLVER.MAX_ITER, 97), *(i + shift for i in changes for shift in (-1, 0, 1))}

    for ours.last_epoch in iterations & set(range(cfg.SOLVER.MAX_ITER)):
        theirs.last_epoch = ours.last_epoch
        assert ours.get_lr() == theirs.get_lr(), ours.last_epoch
    assert lazy.train.max_iter == cfg.SOLVER.MAX_ITER


def test_settings_of_data_and_run(twins):
    cfg, lazy = twins
    data, train, test, run = cfg.DATALOADER, lazy.dataloader.train, lazy.dataloader.test, lazy.train

    assert (train.num_workers, test.num_workers) == (data.NUM_WORKERS, data.NUM_WORKERS)
    assert train.get("aspect_ratio_grouping", True) == data.ASPECT_RATIO_GROUPING
    assert train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert ((train.dataset.names,), (test.dataset.names,)) == (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    assert (run.init_checkpoint, run.eval_period, run.seed) == (cfg.MODEL.WEIGHTS, cfg.TEST.EVAL_PERIOD, cfg.SEED)
    assert (run.checkpointer.period, run.output_dir) == (cfg.SOLVER.CHECKPOINT_PERIOD, cfg.OUTPUT_DIR)
    assert lazy.model.head.num_classes == cfg.MODEL.ATSS.NUM_CLASSES


def test_pictures_and_evaluator(twins, shapes):
    """Both give the same pictures and boxes for the same random numbers."""
    cfg, lazy = twins
    for entry in shapes["DATASETS.REGISTER"]:
        register_coco_format(*entry)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("tiny_train",), ("tiny_val",)
    cfg.MODEL.ATSS.NUM_CLASSES = lazy.model.head.num_classes = 6
    lazy.dataloader.train.dataset.names, lazy.dataloader.test.dataset.names = "tiny_train", "tiny_val"

    for split, theirs in (("train", loaders.train_loader(cfg)), ("test", loaders.test_loader(cfg, "tiny_val"))):
        records, mapper = read_data(lazy, split), instantiate(lazy.dataloader[split].mapper)
        assert [r["file_name"] for r in records] == [theirs.dicts[i]["file_name"] for i in range(len(theirs.dicts))]
        for seed, record in enumerate(records[:3]):
            (ours, image, boxes), expected = (mapped(m, record, seed) for m in (mapper, theirs.mapper))
            assert ours == expected[0] and torch.equal(image, expected[1]) and torch.equal(boxes, expected[2])

    ours, theirs = build(lazy, "dataloader.evaluator"), build_coco_evaluator(cfg, "tiny_val")
    assert type(ours) is type(theirs) and ours._output_dir == theirs._output_dir
    assert ours._max_dets_per_image == theirs._max_dets_per_image


def mapped(mapper, record, seed):
    """Names of the fields that a mapper gives a picture, the picture itself, and its boxes."""
    seed_all_rng(seed)
    found = mapper(record)
    boxes = found["instances"].gt_boxes.tensor if "instances" in found else torch.empty(0, 4)
    return found.keys(), found["image"], boxes


def test_keys_on_the_command_line():
    cfg = load_lazy_config(
        str(ROOT / DEMO),
        [
            "model.head.assigner.topk=15",
            "dataloader.train.mapper.augmentations.0.short_edge_length=[96, 128]",
            "model.backbone.out_channels=32",
            "+model.head.assigner.note=new",
        ],
    )

    assert build(cfg, "model.head.box_selector").nms_threshold == 0.6
    assert cfg.model.head.in_channels == cfg.model.backbone.top_block.channels == 32
    assert cfg.dataloader.train.mapper.augmentations[0].short_edge_length == [96, 128]
    assert (cfg.model.head.assigner.topk, cfg.model.head.assigner.note) == (15, "new")


@pytest.mark.parametrize(
    "text, named",
    [
        ("model = (", "SyntaxError"),
        ("from .gone import model", "gone.py"),
        ("model = unknown", "NameError"),
        ("model = dict(a=1)", "no 'optimizer'"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, text, named):
    path = tmp_path / "config.py"
    path.write_text(text)

    with pytest.raises(InputError, match=r"config\.py.*" + re.escape(named)) as caught:
        load_lazy_config(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override, named",
    [
        ("train.max_iterr=5", "+train.max_iterr=5"),
        ("train.max_iter", "key=value"),
        ("train.max_iter=[5", "train.max_iter=[5"),
        ("train.max_iter.more=5", "no such key"),
        ("train.max_iter=many", "train.max_iter: expected a number"),
        ("~train.max_iter=5", "~train.max_iter"),
        ("dataloader.register=[[a, b]]", "dataloader.register"),
    ],
)
def test_an_override_that_cannot_be_used_is_named(override, named):
    with pytest.raises(InputError, match=re.escape(named)) as caught:
        load_lazy_config(str(ROOT / DEMO), [override])
    assert "\n" not in str(caught.value)


def test_what_a_class_refuses_is_named():
    for override, named in (
        ("+model.head.foo=1", "foo"),
        ("model.head.assigner.topk=0", "topk"),
        ("model.backbone.bottom_up.stages.depth=11", "depth"),
    ):
        with pytest.raises(InputError, match=f"^model: .*{named}"):
            build(load_lazy_config(str(ROOT / DEMO), [override]), "model")


def test_what_needs_a_gpu_is_switched_off_without_one(caplog, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA GPU here")
    cfg = load_lazy_config(str(ROOT / DEMO), ["train.amp.enabled=True"])

    assert (cfg.train.device, cfg.train.amp.enabled) == ("cpu", False)
    assert "no CUDA GPU here: running on the CPU" in caplog.text and "full precision" in caplog.text
    monkeypatch.setattr(backends, "in_interpreter", lambda: False)
    with pytest.raises(InputError, match=r"^model\.head\.assigner\.backend: 'triton'"):
        load_lazy_config(str(ROOT / DEMO), ["model.head.assigner.backend=triton"])
