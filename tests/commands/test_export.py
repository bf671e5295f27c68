"""`python tools/export_model.py`, and the example that it writes, as their users call them."""

import re
import shutil
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from PIL import Image

from atss.commands import export as tool
from atss.config import load_config, parse_with_opts
from atss.data import EvalResize
from atss.errors import InputError
from atss.export import compare
from atss.export.onnx_file import OPSET, load_onnx
from atss.predictor import Predictor
from tests.export.two_levels import make_detector
from tests.helpers import DEMO_CONFIG, ROOT, error_line, pairs, run_forked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(export_config):
    return export_config


def arguments(config, *flags):
    return ["--config-file", DEMO_CONFIG, *map(str, flags), *pairs(config)]


def main(config, *flags):
    tool.main(parse_with_opts(tool.get_parser(), arguments(config, *flags)))


def images_of(config):
    return sorted(Path(config["DATASETS.REGISTER"][1][2]).iterdir())


def example(folder, *flags, check=True):
    """Run the example where torch, Detectron2, OpenCV and this project cannot be imported."""
    script = f"""
        import runpy, sys
        sys.modules.update(dict.fromkeys(["torch", "torchvision", "detectron2", "cv2", "atss"]))
        sys.argv = sys.argv[1:]
        runpy.run_path({str(folder / "example.py")!r}, run_name="__main__")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "example.py", *map(str, flags)]
    return subprocess.run(command, check=check, capture_output=True, text=True)


def test_it_says_how_far_both_models_are_apart_and_nothing_of_the_exporters(exported):
    lines, errors = ((exported.parent / name).read_text() for name in ("printed.txt", "errors.txt"))

    _, _, agreement, *_, written = lines.splitlines()
    assert agreement.startswith("They agree: ") and "boxes in 8 images" in agreement
    assert "largest differences: boxes " in agreement and ", scores " in agreement
    files = ["example.py", "model.onnx", "model_int8.onnx", "serve.py"]
    assert written == f"Written: {exported}: {', '.join(files[::-1])}"
    assert "onnx" not in errors.lower() and "warning" not in errors.lower()
    assert sorted(path.name for path in exported.iterdir()) == files
    assert sorted(path.name for path in exported.parent.iterdir()) == ["errors.txt", "exported", "printed.txt"]


def test_it_says_what_8_bits_cost(exported):
    lines = (exported.parent / "printed.txt").read_text()

    assert "calibrated with 24 images of tiny_train" in lines and "on the 8 images of tiny_val" in lines
    for name in ("float32", "int8"):
        assert re.search(rf"^ *{name}: AP \d+\.\d\d, \d+\.\d MB, \d+\.\d ms per image", lines, re.M)


def test_the_example_finds_what_the_predictor_finds(config, exported, tmp_path):
    paths, predictor = images_of(config)[:3], Predictor(load_config(DEMO_CONFIG, pairs(config)))
    wide = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 333, 3), np.uint8)).save(wide)

    printed = example(exported, *paths, wide, "--threshold", 0.2).stdout

    rows = [line.split("\t") for line in printed.splitlines()]
    for path in (*paths, wide):
        found = predictor.predict(path, min_score=0.2)
        of_image = [row[1:] for row in rows if row[0] == str(path)]
        assert len(found) > 5 and [name for name, *_ in of_image] == found.names
        values = np.array([[float(x) for x in row[1:]] for row in of_image])
        np.testing.assert_allclose(values[:, 0], found.scores, atol=1e-3)
        np.testing.assert_allclose(values[:, 1:], found.boxes, atol=0.1)


def test_the_example_draws(config, exported, tmp_path):
    path = images_of(config)[0]

    example(exported, path, "--threshold", 0.2, "--output", tmp_path / "drawn")

    with Image.open(tmp_path / "drawn" / f"{path.stem}.png") as drawn, Image.open(path) as image:
        assert drawn.size == image.size
        assert (np.asarray(drawn) != np.asarray(image)).any()


def test_the_example_names_an_image_that_cannot_be_read(exported, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")

    result = example(exported, tmp_path / "bad.jpg", check=False)

    assert result.returncode == 1 and result.stderr.startswith(f"error: {tmp_path / 'bad.jpg'}")


def test_inputs_outputs_and_what_the_example_needs_to_know(exported):
    model = onnx.load(exported / "model.onnx")

    sides = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
             for v in [*model.graph.input, *model.graph.output]}  # fmt: skip
    assert sides == {
        "images": ["batch", 3, "height", "width"],
        "sizes": ["batch", 2],
        "boxes": ["batch", 50, 4],
        "scores": ["batch", 50],
        "classes": ["batch", 50],
    }
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    uint8, int64, float32 = onnx.TensorProto.UINT8, onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    assert types == {"images": uint8, "sizes": int64, "boxes": float32, "scores": float32, "classes": int64}
    assert {p.key: p.value for p in model.metadata_props} == {
        "class_names": '["disc", "ring", "box", "frame", "triangle", "cross"]',
        "input_format": "BGR",
        "min_size": "160",
        "max_size": "192",
        "resize_like": "detectron2",
        "pixel_extent": "0",
        "suppressed": "true",
        "nms_threshold": "0.6",
        "max_detections": "50",
    }
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    content = (exported / "model.onnx").read_bytes()
    assert b"site-packages" not in content and b".py" not in content, "paths of the machine that made it"


def load_in_openvino(path):
    pytest.importorskip("openvino")
    from atss.export.openvino_file import load_openvino

    return load_openvino(path)


@pytest.mark.parametrize("load", [load_onnx, load_in_openvino])
def test_images_of_any_size_in_batches_of_any_number(config, exported, load):
    """Sizes down to a pixel, and none that the exporter or the command has seen."""
    random = torch.Generator().manual_seed(0)
    sizes = [(1, 1), (31, 33), (64, 64), (65, 129), (257, 90)]
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=random) for size in sizes]
    detector = Predictor(load_config(DEMO_CONFIG, pairs(config))).model

    batches = [*([image] for image in images), images]
    comparison = compare(detector, load(exported / "model.onnx"), batches, suppressed=True)

    assert not comparison.disagreements and comparison.num_undecided <= 2
    assert comparison.num_images == 10 and comparison.num_boxes > 300
    assert comparison.box_difference < 1e-2 and comparison.score_difference < 1e-4


def test_the_padding_does_not_matter(exported):
    model, random = load_onnx(exported / "model.onnx"), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 100, 140), dtype=torch.uint8, generator=random)
    sizes = torch.tensor([[100, 90], [70, 140]])
    wider = torch.full((2, 3, 300, 200), 200, dtype=torch.uint8)
    for place, image, (height, width) in zip(wider, images, sizes.tolist(), strict=True):
        place[:, :height, :width] = image[:, :height, :width]

    for expected, found in zip(model(images, sizes), model(wider, sizes), strict=True):
        torch.testing.assert_close(found, expected)


def test_places_without_a_box(exported):
    """The smallest image has fewer boxes than places."""
    boxes, scores, classes = load_onnx(exported / "model.onnx")(
        torch.zeros(1, 3, 1, 1, dtype=torch.uint8), torch.tensor([[1, 1]])
    )

    nothing = scores == 0
    assert 0 < nothing.sum() < nothing.numel()
    assert (boxes[nothing] == 0).all() and (classes[nothing] == -1).all() and (classes[~nothing] >= 0).all()


def test_the_model_of_one_size_that_the_docs_make_for_tensorrt(exported, tmp_path, monkeypatch):
    """It gives the same, and no size depends on values, but that of what non-maximum suppression keeps."""
    section = (ROOT / "docs/export.md").read_text().split("## TensorRT")[1]
    code = re.search(r"```python\n(.*?)```", section, re.S)[1].replace("800, 1344", "96, 150")
    shutil.copytree(exported, tmp_path / "exported")
    monkeypatch.chdir(tmp_path)

    exec(code, {})

    image = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 150), np.uint8)
    fixed = onnxruntime.InferenceSession("exported/model_fixed.onnx")
    expected = load_onnx("exported/model.onnx")(torch.from_numpy(image), torch.tensor([[96, 150]]))
    for found, values in zip(fixed.run(None, {"images": image}), expected, strict=True):
        assert np.array_equal(found, values)
    model = onnx.shape_inference.infer_shapes(onnx.load("exported/model_fixed.onnx")).graph
    static = {
        value.name
        for value in [*model.value_info, *model.output]
        if all(side.HasField("dim_value") for side in value.type.tensor_type.shape.dim)
    }
    weights = {tensor.name for tensor in model.initializer}
    dynamic = {node.op_type for node in model.node if not set(node.output) <= static}
    assert dynamic <= {"NonMaxSuppression", "Gather", "Shape", "Expand", "Conv"}
    for node in model.node:
        if node.op_type in ("Pad", "Reshape", "Resize", "Slice", "Tile", "TopK"):
            assert set(filter(None, node.input[1:])) <= weights
    assert {node.domain for node in model.node} == {""}


def test_torch_format(config, tmp_path, monkeypatch, capsys):
    """With a smaller model, to save time."""
    detector, resize = make_detector(), EvalResize(80, 133)

    def prepare(image):
        resized = resize.get_transform(image).apply_image(image)
        return {"image": torch.from_numpy(resized.transpose(2, 0, 1).copy())}

    monkeypatch.setattr(tool, "Predictor", lambda cfg: SimpleNamespace(model=detector, prepare=prepare))
    folder = images_of(config)[0].parent

    main(config, "--format", "torch", "--no-nms", "--images", folder, "--output", tmp_path / "out")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.pt2"]
    assert "They agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    "score, settings, message",
    [
        (0.9, {}, r"does not agree.*not written: \d+ boxes differ.*only .* detects class"),
        (0.0, {"MODEL.ATSS.SCORE_THRESH_TEST": 1.0}, r"finds nothing.*--images.*MODEL\.ATSS\.SCORE_THRESH_TEST"),
    ],
    ids=["does not agree", "finds nothing"],
)
def test_a_model_that_is_not_confirmed_is_not_written(config, tmp_path, monkeypatch, score, settings, message):
    """The exported model finds a box with this score in every image."""

    def model(images, sizes):
        number = len(images)
        box = torch.tensor([5.0, 5, 50, 60]).expand(number, 1, 4)
        return box, torch.full((number, 1), score), torch.zeros(number, 1, dtype=torch.int64)

    def save(program, path, metadata):
        Path(path).write_text("")

    monkeypatch.setattr(tool.export, "capture", lambda module: None)
    monkeypatch.setattr(tool, "make_format", lambda name: (save, lambda path: model, None))

    with pytest.raises(InputError, match=message):
        main({**config, **settings}, "--output", tmp_path / "out")

    assert not list(tmp_path.iterdir())


def test_a_layer_that_cannot_be_exported_takes_one_line(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.export, "capture", Mock(side_effect=RuntimeError("no such operator\nand much more")))

    with pytest.raises(InputError, match=r"--format torch: this model cannot be exported \(no such operator\)"):
        main(config, "--format", "torch", "--output", tmp_path / "out")

    assert not list(tmp_path.iterdir())


def test_onnx_missing(config, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "atss.export.onnx_file")
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        main(config, "--output", tmp_path / "out")


@pytest.mark.parametrize(
    "settings, flags, what",
    [
        ({"MODEL.WEIGHTS": "''"}, [], r"MODEL\.WEIGHTS"),
        ({"MODEL.WEIGHTS": "nowhere.pth"}, [], r"nowhere\.pth"),
        ({"TEST.AUG.ENABLED": True}, [], r"TEST\.AUG\.ENABLED.*multi-scale"),
        ({"TEST.TILE.SIZE": 64}, [], r"TEST\.TILE\.SIZE: tiles cannot be exported"),
        ({"DATASETS.TEST": "()"}, [], r"DATASETS\.TEST.*--images"),
        ({}, ["--images", "nowhere.jpg"], r"--images nowhere\.jpg"),
        ({}, ["--images", "tests/tools"], "--images tests/tools: no image"),
        ({}, ["--images", "README.md"], r"--images README\.md: the image cannot be read"),
        ({}, ["--int8", "tiny_val"], r"--int8 tiny_val: needs --format onnx"),
        ({}, ["--output", "README.md"], r"--output README\.md: is a file"),
        ({}, ["--output", "README.md/below"], r"--output README\.md/below: cannot write"),
    ],
)
def test_bad_input_is_named(config, tmp_path, settings, flags, what):
    with pytest.raises(InputError, match=what):
        main({**config, **settings}, "--format", "torch", "--output", tmp_path / "out", *flags)

    assert not list(tmp_path.iterdir())


def test_an_error_takes_one_line(config, tmp_path):
    command = arguments({**config, "MODEL.WEIGHTS": "nowhere.pth"}, "--output", tmp_path / "out")

    assert "nowhere.pth" in error_line(run_forked("tools/export_model.py", *command, check=False))


def test_a_dozen_images_of_all_shapes_are_compared():
    images = [(f"{i}.jpg", (100 + i, 100)) for i in range(1000)]

    chosen = tool.choose(images)

    widths = sorted(int(path.removesuffix(".jpg")) for path in chosen)
    assert len(chosen) == 12 and widths[0] == 0 and widths[-1] == 999
    assert max(b - a for a, b in pairwise(widths)) < 100
    assert chosen != sorted(chosen) and chosen == tool.choose(images)
    assert sorted(tool.choose(images[:3])) == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize("number, sizes", [(12, [1, 2, 3, 1, 2, 3]), (8, [1, 2, 3, 1, 1]), (2, [1, 2]), (1, [1, 2])])
def test_batches_are_of_one_and_of_more(number, sizes):
    assert [len(batch) for batch in tool.batches(range(number))] == sizes


def test_a_dynamic_head_is_exported(config, tmp_path, capsys):
    """Trained, it would have offsets; images have all sizes, and their boxes are clipped at last."""
    settings = {
        **config, "MODEL.ATSS.IN_FEATURES": ["p3", "p4", "p5"], "MODEL.ATSS.DYHEAD_BLOCKS": 1,
        "MODEL.ATSS.NUM_CONVS": 0, "MODEL.ATSS.PREDICTOR_KERNEL": 1, "MODEL.ATSS.SIZE_DIVISIBILITY": 64,
        "MODEL.ATSS.CLIP_BEFORE_NMS": False, "MODEL.WEIGHTS": str(tmp_path / "model.pth"),
    }  # fmt: skip
    torch.manual_seed(0)
    model = build_model(load_config(DEMO_CONFIG, pairs({**settings, "MODEL.WEIGHTS": ""})))
    for layer, std in (
        (model.head.class_logits, 0.5),
        (model.head.box_deltas, 0.1),
        (model.neck.blocks[0].offset, 0.1),
    ):
        torch.nn.init.normal_(layer.weight, std=std)
    DetectionCheckpointer(model, str(tmp_path)).save("model")

    (tmp_path / "out").mkdir()
    (tmp_path / "out/model_int8.onnx").touch()  # of an earlier export

    main(settings, "--output", tmp_path / "out")

    assert not (tmp_path / "out/model_int8.onnx").exists()

    printed = capsys.readouterr().out
    assert "They agree: " in printed
    if find_spec("openvino"):
        assert "OpenVINO cannot run it (No conversion rule found for operations: DeformConv" in printed
