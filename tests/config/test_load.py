"""What `load_config` settles, and what it refuses in one line that names file or key."""

import argparse

import pytest
from detectron2.engine import default_argument_parser

from atss.config import load_config, parse_with_opts
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, pairs


def config_file(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


def refused(*args):
    with pytest.raises(InputError) as caught:
        load_config(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_classes_come_from_the_dataset(tiny_config):
    for settings in ({}, {"MODEL.ATSS.NUM_CLASSES": 6}):
        atss = tiny_config(settings).MODEL.ATSS

        assert atss.NUM_CLASSES == 6
        assert atss.CLASS_NAMES == ["disc", "ring", "box", "frame", "triangle", "cross"]
    assert load_config("configs/atss_R_50_FPN_1x.yaml").MODEL.ATSS.NUM_CLASSES == 80, "COCO's, without reading it"


def test_classes_that_disagree_are_refused(shapes, coco_file):
    message = refused(DEMO_CONFIG, pairs({**shapes, "MODEL.ATSS.NUM_CLASSES": 80}))
    assert "80" in message and "6 classes" in message and "tiny_train" in message

    entries = [*shapes["DATASETS.REGISTER"], ["animals", *coco_file()]]
    message = refused(DEMO_CONFIG, pairs({**shapes, "DATASETS.REGISTER": entries, "DATASETS.TEST": "('animals',)"}))
    assert "tiny_train" in message and "animals" in message and "cat, dog" in message


def test_without_a_gpu_it_runs_on_the_cpu_and_says_so_once(shapes, caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    cfg = load_config(DEMO_CONFIG, pairs({**shapes, "MODEL.DEVICE": "cuda", "SOLVER.AMP.ENABLED": True}))

    assert cfg.MODEL.DEVICE == "cpu" and not cfg.SOLVER.AMP.ENABLED
    assert [r.message for r in caplog.records if "no CUDA GPU" in r.message] == [
        "MODEL.DEVICE is cuda, but there is no CUDA GPU here: running on the CPU."
    ]


def test_bfloat16_is_for_cpus_too(shapes, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    amp = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.PRECISION": "bfloat16"}

    for device in ("cpu", "cuda"):
        assert load_config(DEMO_CONFIG, pairs({**shapes, "MODEL.DEVICE": device, **amp})).SOLVER.AMP.ENABLED


def test_a_precision_that_the_device_does_not_have_is_refused(shapes, monkeypatch):
    amp = {**shapes, "MODEL.DEVICE": "cpu", "SOLVER.AMP.ENABLED": True}
    message = refused(DEMO_CONFIG, pairs(amp))
    assert "SOLVER.AMP.PRECISION float16 needs a CUDA GPU" in message and "set SOLVER.AMP.PRECISION bfloat16" in message

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    old_gpu = {
        **amp,
        "MODEL.DEVICE": "cuda",
        "MODEL.ATSS.ASSIGNER_BACKEND": "torch",
        "MODEL.ATSS.LOSS_BACKEND": "torch",
    }
    message = refused(DEMO_CONFIG, pairs({**old_gpu, "SOLVER.AMP.PRECISION": "bfloat16"}))
    assert "SOLVER.AMP.PRECISION bfloat16" in message and "set SOLVER.AMP.PRECISION float16" in message
    assert load_config(DEMO_CONFIG, pairs(old_gpu)).SOLVER.AMP.ENABLED


def test_a_model_trained_in_float16_runs_on_a_cpu(tmp_path):
    path = config_file(
        tmp_path,
        "MODEL: {META_ARCHITECTURE: ATSS, DEVICE: cpu, ATSS: {NUM_CLASSES: 2, CLASS_NAMES: [cat, dog]}}\n"
        "SOLVER: {AMP: {ENABLED: True}}\n",
    )

    assert load_config(path, read_datasets=False).MODEL.DEVICE == "cpu"


def test_a_trained_models_config_needs_no_dataset(tmp_path):
    path = config_file(
        tmp_path,
        "MODEL: {META_ARCHITECTURE: ATSS, ATSS: {NUM_CLASSES: 2, CLASS_NAMES: [cat, dog]}}\n"
        "DATASETS: {REGISTER: [[pets, gone.json, gone/]], TEST: [pets]}\n",
    )

    assert load_config(path, read_datasets=False).MODEL.ATSS.CLASS_NAMES == ["cat", "dog"]
    assert "gone.json" in refused(path)


@pytest.mark.parametrize(
    "opts, named",
    [
        ("SOLVER.AMP.PRECISION float8", ["SOLVER.AMP.PRECISION", "'float8'", "'float16'", "'bfloat16'"]),
        ("MODEL.ATSS.TOPKK 9", ["MODEL.ATSS.TOPKK", "Non-existent"]),
        ("MODEL.ATSS.TOPK nine", ["MODEL.ATSS.TOPK", "nine"]),
        ("MODEL.ATSS.TOPK 0", ["MODEL.ATSS.TOPK", "from 1 to 64", "got 0"]),
        ("MODEL.ATSS.TOPK", ["pairs"]),
        ("MODEL.ATSS.ASSIGNER_BACKEND cuda", ["MODEL.ATSS.ASSIGNER_BACKEND", "cuda", "'auto', 'torch', 'triton'"]),
        ("MODEL.ATSS.BOX_CODING circle", ["MODEL.ATSS.BOX_CODING", "circle", "'box'", "'point'"]),
        ("MODEL.ATSS.ASSIGNER Hungarian", ["MODEL.ATSS.ASSIGNER", "Hungarian", "ATSSAssigner"]),
        ("MODEL.ATSS.HEAD Hydra", ["MODEL.ATSS.HEAD", "Hydra", "ATSSHead"]),
        ("MODEL.ATSS.NORM XN", ["MODEL.ATSS.NORM", "XN"]),
        ("MODEL.ATSS.ASPECT_RATIOS []", ["MODEL.ATSS.ASPECT_RATIOS", "positive numbers"]),
        ("MODEL.ATSS.ASPECT_RATIOS [0.0]", ["MODEL.ATSS.ASPECT_RATIOS", "[0.0]"]),
        ("MODEL.ATSS.SCALES_PER_OCTAVE 0", ["MODEL.ATSS.SCALES_PER_OCTAVE", "got 0"]),
        ("MODEL.ATSS.ANCHOR_SCALE 0.0", ["MODEL.ATSS.ANCHOR_SCALE", "got 0.0"]),
        ("MODEL.ATSS.NUM_CONVS -1", ["MODEL.ATSS.NUM_CONVS", "got -1"]),
        ("MODEL.ATSS.NUM_CONVS 0 MODEL.ATSS.USE_DCN_IN_TOWER True", ["USE_DCN_IN_TOWER", "MODEL.ATSS.NUM_CONVS is 0"]),
        ("MODEL.ATSS.PREDICTOR_KERNEL 2", ["MODEL.ATSS.PREDICTOR_KERNEL", "2 is not one of 1, 3"]),
        ("MODEL.ATSS.SIZE_DIVISIBILITY 0", ["MODEL.ATSS.SIZE_DIVISIBILITY", "got 0"]),
        ("MODEL.ATSS.DYHEAD_BLOCKS -1", ["MODEL.ATSS.DYHEAD_BLOCKS", "got -1"]),
        ("MODEL.ATSS.DYHEAD_BLOCKS 1 MODEL.FPN.OUT_CHANNELS 40", ["MODEL.FPN.OUT_CHANNELS is 40", "multiple of 16"]),
        ("MODEL.ATSS.PIXEL_EXTENT 2", ["MODEL.ATSS.PIXEL_EXTENT", "2 is not one of 0, 1"]),
        ("MODEL.ATSS.MAX_DISTANCE 0", ["MODEL.ATSS.MAX_DISTANCE", "strides", "got 0"]),
        ("MODEL.ATSS.CLASS_LOSS qfl", ["MODEL.ATSS.CLASS_LOSS", "'focal', 'quality_focal'"]),
        ("MODEL.ATSS.BOX_LOSS l2", ["MODEL.ATSS.BOX_LOSS", "'giou', 'smooth_l1'"]),
        ("MODEL.ATSS.IOU_THRESHOLDS ['a','b']", ["MODEL.ATSS.IOU_THRESHOLDS", "[negative, positive]"]),
        ("MODEL.ATSS.IOU_THRESHOLDS [0.5,0.4]", ["MODEL.ATSS.IOU_THRESHOLDS", "negative <= positive", "[0.5, 0.4]"]),
        ("MODEL.ATSS.IOU_THRESHOLDS [0.5]", ["MODEL.ATSS.IOU_THRESHOLDS", "[0.5]"]),
        # Keys that make no sense together are both named.
        (
            "MODEL.ATSS.BOX_CODING point MODEL.ATSS.ASPECT_RATIOS [0.5,1.0,2.0] MODEL.ATSS.SCALES_PER_OCTAVE 3",
            ["MODEL.ATSS.BOX_CODING", "MODEL.ATSS.ASPECT_RATIOS", "MODEL.ATSS.SCALES_PER_OCTAVE", "9"],
        ),
        (
            "MODEL.ATSS.CLASS_LOSS quality_focal",
            ["MODEL.ATSS.CLASS_LOSS 'quality_focal'", "MODEL.ATSS.CENTERNESS False"],
        ),
        (
            "MODEL.ATSS.CLASS_LOSS quality_focal MODEL.ATSS.CENTERNESS False MODEL.ATSS.BOX_LOSS smooth_l1",
            ["MODEL.ATSS.CLASS_LOSS 'quality_focal'", "MODEL.ATSS.BOX_LOSS 'smooth_l1'", "'giou'"],
        ),
        (
            "MODEL.ATSS.CLASS_LOSS quality_focal MODEL.ATSS.CENTERNESS False MODEL.ATSS.LOSS_BACKEND triton",
            ["MODEL.ATSS.CLASS_LOSS 'quality_focal'", "MODEL.ATSS.LOSS_BACKEND 'triton'", "'torch'"],
        ),
        (
            "MODEL.ATSS.BOX_CODING distribution",
            ["MODEL.ATSS.BOX_CODING 'distribution'", "MODEL.ATSS.CLASS_LOSS 'quality_focal'"],
        ),
        (
            "MODEL.ATSS.BOX_CODING point MODEL.ATSS.SCALES_PER_OCTAVE 2",
            ["MODEL.ATSS.BOX_CODING", "MODEL.ATSS.SCALES_PER_OCTAVE 2", "make 2"],
        ),
        (
            "MODEL.ATSS.ASSIGNER ScaleRangeAssigner MODEL.ATSS.SCALE_RANGES [[0,64],[64,128]]",
            ["MODEL.ATSS.SCALE_RANGES has 2", "MODEL.ATSS.IN_FEATURES has 5"],
        ),
        (
            "MODEL.ATSS.ASSIGNER CenterSamplingAssigner MODEL.ATSS.IN_FEATURES ['p3','p4','p5']",
            ["MODEL.ATSS.SCALE_RANGES has 5", "MODEL.ATSS.IN_FEATURES has 3"],
        ),
        (
            "MODEL.ATSS.ASSIGNER ScaleRangeAssigner MODEL.ATSS.SCALE_RANGES [[64,0],[64,0],[64,0],[64,0],[64,0]]",
            ["MODEL.ATSS.SCALE_RANGES", "low before high"],
        ),
        (
            "MODEL.ATSS.ASSIGNER ScaleRangeAssigner MODEL.ATSS.SCALE_RANGES [1,2,3,4,5]",
            ["MODEL.ATSS.SCALE_RANGES", "(low, high)"],
        ),
        ("MODEL.BACKBONE.NAME spine", ["MODEL.BACKBONE.NAME", "spine", "build_atss_resnet_fpn_backbone"]),
        ("INPUT.RESIZE_LIKE caffe", ["INPUT.RESIZE_LIKE", "caffe", "'mmdetection'"]),
        ("INPUT.RESIZE_BACKEND_TRAIN turbo", ["INPUT.RESIZE_BACKEND_TRAIN", "turbo", "'pillow', 'torch'"]),
        ("DATALOADER.NUM_WORKERS -2", ["DATALOADER.NUM_WORKERS", "-1 or a number", "got -2"]),
        ("INPUT.FORMAT L", ["INPUT.FORMAT", "'L'", "'BGR', 'RGB'"]),
        ("TEST.AUG.MERGE mean", ["TEST.AUG.MERGE", "mean", "'soft_vote'"]),
        ("TEST.AUG.BOX_RANGES [[0,96]]", ["TEST.AUG.BOX_RANGES", "9 scales of TEST.AUG.MIN_SIZES"]),
        ("TEST.AUG.BOX_RANGES [['a',3]]", ["TEST.AUG.BOX_RANGES", "[from, to]"]),
        ("TEST.AUG.BOX_RANGES [96]", ["TEST.AUG.BOX_RANGES", "[from, to]", "[96]"]),
        ("TEST.AUG.MIN_SIZES ('a',)", ["TEST.AUG.MIN_SIZES", "('a',)"]),
        ("TEST.TILE.SIZE 31", ["TEST.TILE.SIZE", "at least 32 pixels", "MODEL.ATSS.ANCHOR_SCALE", "31"]),
        ("TEST.TILE.SIZE -1", ["TEST.TILE.SIZE", "-1"]),
        ("SOLVER.MAX_ITERS 60", ["SOLVER.MAX_ITERS", "did you mean SOLVER.MAX_ITER?"]),
        ("MODEL.TIMM.NAME resnet18", ["MODEL.TIMM.NAME resnet18", "build_timm_fpn_backbone"]),
        ("TEST.TILE.OVERLAP 1.0", ["TEST.TILE.OVERLAP", "less than 1", "1.0"]),
        ("TEST.TILE.OVERLAP -0.1", ["TEST.TILE.OVERLAP", "-0.1"]),
        ("TEST.TILE.OVERLAP .nan", ["TEST.TILE.OVERLAP", "nan"]),
        ("TEST.TILE.SIZE 64 INPUT.MIN_SIZE_TEST 0", ["TEST.TILE.WHOLE_IMAGE False", "INPUT.MIN_SIZE_TEST"]),
        ("TEST.TILE.BATCH_SIZE -1", ["TEST.TILE.BATCH_SIZE", "-1"]),
        ("TEST.KEEP_BEST True", ["TEST.KEEP_BEST", "TEST.EVAL_PERIOD"]),
        ("SOLVER.EMA_DECAY 1.0", ["SOLVER.EMA_DECAY", "less than 1", "got 1.0"]),
        (
            "DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler",
            ["DATALOADER.SAMPLER_TRAIN", "DATALOADER.REPEAT_THRESHOLD", "such as 0.1"],
        ),
        ("SOLVER.EARLY_STOP -1", ["SOLVER.EARLY_STOP", "got -1"]),
        ("SOLVER.EARLY_STOP 3", ["SOLVER.EARLY_STOP", "TEST.EVAL_PERIOD"]),
        ("SOLVER.OPTIMIZER Lion", ["SOLVER.OPTIMIZER", "Lion", "AdamW"]),
        ("DATASETS.TRAIN ('nowhere',)", ["nowhere", "DATASETS.REGISTER"]),
        ("DATASETS.REGISTER ['a','b','c']", ["DATASETS.REGISTER", "[name, annotation file, image folder]"]),
    ],
)
def test_settings_that_cannot_be_used_are_named(opts, named):
    message = refused(DEMO_CONFIG, opts.split())

    assert all(part in message for part in named), message


def test_rules_without_ranges_ignore_invalid_ones(shapes):
    settings = {**shapes, "MODEL.ATSS.SCALE_RANGES": [[0, 64]], "MODEL.ATSS.ASSIGNER": "IoUAssigner"}

    assert load_config(DEMO_CONFIG, pairs(settings)).MODEL.ATSS.SCALE_RANGES == [[0, 64]]


@pytest.mark.parametrize("key", ["MODEL.ATSS.ASSIGNER_BACKEND", "MODEL.ATSS.LOSS_BACKEND"])
def test_the_gpu_backends_need_a_gpu(monkeypatch, key):
    import triton

    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    message = refused(DEMO_CONFIG, [key, "triton", "MODEL.DEVICE", "cpu"])

    assert key in message and "needs tensors on a CUDA GPU, got cpu" in message


@pytest.mark.parametrize(
    "text, named",
    [
        ("MODEL: {ATSS: {TOPKK: 9}}", "MODEL.ATSS.TOPKK"),
        ("MODEL: [", "line 1"),
        ("MODEL: {WEIGHTS: !!python/object/apply:os.getcwd []}", "not a plain yaml file"),
        ("just words", "config.yaml"),
        ("_BASE_: nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_config_files_that_cannot_be_used_are_named(tmp_path, text, named):
    message = refused(config_file(tmp_path, text))

    assert "config.yaml" in message and named in message


def test_missing_config_files_are_named():
    assert "nowhere.yaml" in refused("nowhere.yaml")
    assert "--config-file" in refused("")


def test_config_files_run_no_code(tmp_path):
    trace = tmp_path / "trace"
    refused(config_file(tmp_path, f"MODEL: {{WEIGHTS: !!python/object/apply:os.mkdir ['{trace}']}}"))

    assert not trace.exists()


def test_keys_and_values_stand_behind_options_of_any_number():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("opts", nargs="*")

    args = parse_with_opts(parser, ["--seeds", "1", "2", "SOLVER.MAX_ITER", "7", "SEED", "3"])

    assert (args.seeds, args.opts) == ([1, 2], ["SOLVER.MAX_ITER", "7", "SEED", "3"])
    args = parse_with_opts(parser, ["SEED", "3", "--seeds", "1", "SEED", "4"])
    assert (args.seeds, args.opts) == ([1], ["SEED", "3", "SEED", "4"])
    assert parse_with_opts(parser, ["--seeds", "1"]).opts == []
    args = parse_with_opts(parser, ["OUTPUT.LOGGERS", "['wandb']", "--seeds", "1"])
    assert args.opts == ["OUTPUT.LOGGERS", "['wandb']"], "a node that Detectron2 does not have"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config-file", "F", "SOLVER.MAX_ITER", "10", "--resume", "OUTPUT_DIR", "x"],
        ["SOLVER.MAX_ITER", "10", "--config-file", "F", "OUTPUT_DIR", "x", "--resume"],
        ["--resume", "SOLVER.MAX_ITER", "10", "OUTPUT_DIR", "x", "--config-file", "F"],
    ],
)
def test_keys_and_values_stand_anywhere_on_the_command_line_of_train_net(arguments):
    args = parse_with_opts(default_argument_parser(), arguments)

    assert args.opts == ["SOLVER.MAX_ITER", "10", "OUTPUT_DIR", "x"] and args.resume and args.config_file == "F"


def test_values_may_look_like_options_of_one_letter_and_options_have_values_of_their_own():
    arguments = ["SEED", "-1", "--num-gpus", "2", "MODEL.DEVICE", "cpu", "--dist-url", "auto", "--config-file", "F"]

    args = parse_with_opts(default_argument_parser(), arguments)

    assert args.opts == ["SEED", "-1", "MODEL.DEVICE", "cpu"]
    assert (args.num_gpus, args.dist_url, args.config_file) == (2, "auto", "F")


@pytest.mark.parametrize("place", ["file", "command line"])
def test_a_renamed_key_names_the_new_one_in_one_line(place, tmp_path):
    (tmp_path / "old.yaml").write_text(f"_BASE_: {DEMO_CONFIG}\nSOLVER:\n  MAX_LEFT_OUT: 3\n")
    config, opts = (tmp_path / "old.yaml", []) if place == "file" else (DEMO_CONFIG, ["SOLVER.MAX_LEFT_OUT", "3"])

    with pytest.raises(InputError, match=r"SOLVER\.MAX_LEFT_OUT was renamed to SOLVER\.MAX_SKIPPED_BATCHES") as error:
        load_config(str(config), opts)

    assert "\n" not in str(error.value)


def test_compilation_without_a_compiler_is_refused(shapes, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")

    message = refused(DEMO_CONFIG, pairs({**shapes, "MODEL.ATSS.COMPILE": True, "MODEL.DEVICE": "cpu"}))

    assert message.startswith("MODEL.ATSS.COMPILE") and "g++" in message
