"""`python demo/demo.py` on images: what it accepts, draws and reports."""

import io
import json
import runpy
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from atss.errors import InputError
from atss.utils.drawing import MIN_LONG_SIDE
from tests.demo.helpers import LOW, arguments, frames_of, images_of, main, write_video
from tests.helpers import ROOT, run_forked

pytestmark = pytest.mark.slow


def test_all_images_of_a_folder_are_drawn(model, shapes, tmp_path):
    result = run_forked(
        "demo/demo.py", *arguments(model, "--input", images_of(shapes), "--output", tmp_path / "out", *LOW)
    )

    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [f"{i:06d}.png" for i in range(8)]
    assert max(cv2.imread(str(written[0])).shape) >= MIN_LONG_SIDE
    assert result.stdout.strip().splitlines()[-1].startswith("8 images in "), result.stdout
    assert ", 40 detections; " in result.stdout and result.stdout.strip().endswith(" in the model alone")


def test_glob_pattern_output_file_and_threshold(model, shapes, tmp_path):
    for name, threshold in (("drawn.png", 0.0), ("plain.png", 0.99)):
        flags = ["--output", tmp_path / name, "--confidence-threshold", threshold]
        main(model, "--input", f"{images_of(shapes)}/00000[3].jpg", *flags)

    assert (cv2.imread(str(tmp_path / "drawn.png")) != cv2.imread(str(tmp_path / "plain.png"))).any()


def test_images_and_videos_are_detected_in_tiles(model, tmp_path):
    """Two tiles of 64 pixels in a frame of 96 by 64, four in an image of 100 by 100, and each of them as a whole."""
    write_video(tmp_path / "video.mp4", 2)
    Image.new("RGB", (100, 100), "white").save(tmp_path / "image.png")
    counts = {}
    for name, flags in (("plain", []), ("tiles", ["--tile", 64, "--overlap", 0.2])):
        inputs = ["--input", tmp_path / "video.mp4", tmp_path / "image.png"]
        main(model, *inputs, "--json", tmp_path / f"{name}.json", *LOW, *flags)
        content = json.loads((tmp_path / f"{name}.json").read_text())
        counts[name] = np.bincount([a["image_id"] for a in content["annotations"]])[1:].tolist()

    assert counts["plain"] == [5, 5, 5], "TEST.DETECTIONS_PER_IMAGE"
    assert all(10 <= number <= 15 for number in counts["tiles"][:2]) and 15 < counts["tiles"][2] <= 25, counts
    with pytest.raises(InputError, match=r"TEST\.TILE\.SIZE: expected 0, or at least 32 pixels"):
        main(model, *inputs, "--json", tmp_path / "no.json", "--tile", 8)
    with pytest.raises(InputError, match=r"--overlap 0\.3: .* add --tile"):
        main(model, *inputs, "--json", tmp_path / "no.json", "--overlap", 0.3)


def test_images_may_be_transparent_rotated_deep_or_gray(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGBA", (60, 40), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.fromarray(np.full((40, 60), 65535, np.uint16)).save(folder / "deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "white").save(folder / "rotated.jpg", exif=exif)
    Image.new("L", (1, 1), 255).save(folder / "point.gif")

    main(model, "--input", folder, "--output", tmp_path / "out")

    drawn = {path.name: cv2.imread(str(path)) for path in (tmp_path / "out").iterdir()}
    assert {name: image.shape for name, image in drawn.items()} == {
        "clear.png": (427, 640, 3), "deep.png": (427, 640, 3), "rotated.png": (640, 427, 3), "point.png": (640, 640, 3)
    }  # fmt: skip
    assert all((image == 255).all() for image in drawn.values())


def test_list_on_standard_input(model, shapes, tmp_path, monkeypatch):
    names = f"{images_of(shapes)}/000002.jpg\n\n {images_of(shapes)}/00000[56].jpg \n"

    monkeypatch.setattr(sys, "stdin", io.StringIO(names))
    main(model, "--input", "-", f"{images_of(shapes)}/000001.jpg", "--output", tmp_path / "out")

    assert [path.stem for path in sorted((tmp_path / "out").iterdir())] == ["000001", "000002", "000005", "000006"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(InputError, match="--input -: the list on standard input is empty"):
        main(model, "--input", "-", "--output", tmp_path / "out")


def test_unreadable_images_are_named_and_the_others_drawn(model, shapes, tmp_path, caplog):
    bad, good, truncated = tmp_path / "bad.jpg", f"{images_of(shapes)}/000001.jpg", tmp_path / "truncated.jpg"
    bad.write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:150])

    with pytest.raises(InputError, match="2 of 3 inputs could not be read"):
        main(model, "--input", bad, good, truncated, "--output", tmp_path / "out", "--json", tmp_path / "list.json")

    assert all(f"{path.name}: the image cannot be read" in caplog.text for path in (bad, truncated))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001.png"]
    assert [image["file_name"] for image in json.loads((tmp_path / "list.json").read_text())["images"]] == [good]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("", "--input is missing"),
        ("--input nowhere.jpg", "nowhere.jpg: no such image or video"),
        ("--input nowhere.mp4", "nowhere.mp4: no such image or video"),
        ("--input nowhere/*.jpg", r"nowhere/\*.jpg: no such image or video"),
        (f"--input {ROOT}/tests/tools", "tests/tools: no image and no video in this folder"),
        ("--webcam --input a.jpg", "--webcam cannot be combined with"),
        ("--video-input none.mp4", r"--video-input none\.mp4: no such video"),
        ("--input a.jpg --batch-size 0", "--batch-size: expected at least 1, got 0"),
        ("--input a.jpg --confidence-threshold 50", "--confidence-threshold: expected 0 to 1, got 50"),
    ],
)
def test_inputs_and_flags_that_cannot_be_used_are_named(model, flags, text):
    with pytest.raises(InputError, match=text):
        main(model, *flags.split(), "--output", "out")


def test_weights_are_required(model, shapes, tmp_path):
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS"):
        main({**model, "MODEL.WEIGHTS": "''"}, "--input", images_of(shapes), "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors_of_outputs_take_one_line(model, shapes, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for flag, path in (("--output", "file/out"), ("--json", "file/list.json"), ("--output", "file/")):
        with pytest.raises(InputError, match=r"file.*: this folder cannot be made"):
            main(model, "--input", images_of(shapes), flag, f"{tmp_path}/{path}")
    command = ["demo/demo.py", *arguments(model, "--input", images_of(shapes), "--json", tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: --json {tmp_path}: this is a folder; name a file"


def test_ctrl_c_completes_the_files(model, tmp_path):
    video = write_video(tmp_path / "long.avi", number=2000)
    flags = ["--input", video, "--output", tmp_path / "out.mp4", "--json", tmp_path / "list.json"]
    process = subprocess.Popen(
        [sys.executable, "demo/demo.py", *arguments(model, *flags)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Programs in the background, such as `make test &` from a script, inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (tmp_path / "out.mp4").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()

    assert process.returncode == 130, err
    assert "Traceback" not in err and err.strip().splitlines()[-1].startswith("interrupted: "), err
    number = len(frames_of(tmp_path / "out.mp4")[0])
    assert 0 < number < 2000 and f"{number} frames in " in out
    assert len(COCO(str(tmp_path / "list.json")).imgs) in (number, number + 1)
