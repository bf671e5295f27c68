"""`python demo/demo.py` as its users call it."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

import demo
from atss.errors import InputError
from conftest import DEMO_CONFIG, ROOT, TINY, error_line, pairs, run


@pytest.fixture
def model(tiny_config, shapes, tmp_path):
    """Key-value pairs of a model whose checkpoint is there, and the folder of the pictures."""
    DetectionCheckpointer(build_model(tiny_config()), str(tmp_path)).save("model")
    return {**TINY, **shapes, "MODEL.WEIGHTS": tmp_path / "model.pth", "MODEL.ATSS.SCORE_THRESH_TEST": 0.0}


def arguments(model, *flags):
    return ["--config-file", DEMO_CONFIG, *map(str, flags), "--opts", *pairs(model)]


def pictures_of(shapes):
    return shapes["DATASETS.REGISTER"][1][2]


def test_folder_in_folder_out(model, shapes, tmp_path):
    run("demo/demo.py", *arguments(model, "--input", pictures_of(shapes), "--output", tmp_path / "out"))

    outputs = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in outputs] == [f"{i:06d}.png" for i in range(8)]
    assert max(cv2.imread(str(outputs[0])).shape) >= demo.MIN_LONG_SIDE


def main(model, *flags):
    demo.main(demo.get_parser().parse_args(arguments(model, *flags)))


def test_glob_in_and_file_out_and_threshold(model, shapes, tmp_path):
    pattern = f"{pictures_of(shapes)}/00000[3].jpg"
    drawn, plain = tmp_path / "drawn.png", tmp_path / "plain.png"

    main(model, "--input", pattern, "--output", drawn, "--confidence-threshold", 0.0)
    main(model, "--input", pattern, "--output", plain, "--confidence-threshold", 0.99)

    assert (cv2.imread(str(drawn)) != cv2.imread(str(plain))).any()


def test_boxes_names_and_colours_are_drawn():
    picture = np.full((480, 640, 3), 127, np.uint8)
    found = Instances((480, 640))
    found.pred_boxes = Boxes(torch.tensor([[100.0, 100, 300, 300], [400, 200, 600, 400]]))
    found.scores, found.pred_classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])

    changed = (demo.draw(picture, found, ["cat", "dog"]) != 127).any(-1)

    for x1, y1, x2, y2 in found.pred_boxes.tensor.int().tolist():
        assert changed[y1 - 2 : y1 + 3, x1:x2].any(0).mean() > 0.9, "upper side"
        assert changed[y1:y2, x2 - 2 : x2 + 3].any(1).mean() > 0.9, "right side"
        assert not changed[(y1 + y2) // 2, (x1 + x2) // 2]
    assert not changed[440:].any() and not changed[:, :60].any()


def test_names_of_outputs_do_not_collide():
    assert demo.output_paths(["a/1.jpg", "b/1.png"], "out") == ["out/1.png", "out/1_2.png"]
    assert demo.output_paths(["a/1.jpg"], "out/drawn.jpg") == ["out/drawn.jpg"]
    with pytest.raises(InputError, match="need a folder"):
        demo.output_paths(["1.jpg", "2.jpg"], "drawn.jpg")


@pytest.mark.parametrize("name", ["nowhere.jpg", "nowhere/*.jpg", "tests/tools"])
def test_input_without_a_picture_is_named(model, name):
    with pytest.raises(InputError, match=name.replace("*", r"\*")):
        main(model, "--input", ROOT / name if name == "tests/tools" else name, "--output", "out")


def test_without_a_screen_it_asks_for_an_output(model, shapes, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="--output"):
        main(model, "--input", pictures_of(shapes))


def test_an_unreadable_picture_is_named_and_the_others_are_drawn(model, shapes, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    good = f"{pictures_of(shapes)}/000001.jpg"

    result = run(
        "demo/demo.py",
        *arguments(model, "--input", tmp_path / "bad.jpg", good, "--output", tmp_path / "out"),
        check=False,
    )

    assert "1 of 2 pictures" in error_line(result)
    assert "bad.jpg" in result.stdout + result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001.png"]


def test_weights_are_asked_for(model, shapes):
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS"):
        main({**model, "MODEL.WEIGHTS": "''"}, "--input", pictures_of(shapes), "--output", "out")
