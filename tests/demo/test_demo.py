"""`python demo/demo.py` as its users call it: images, videos and cameras in, drawn ones and COCO's format out."""

import io
import json
import signal
import struct
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from PIL import Image
from pycocotools.coco import COCO

import demo
import outputs
import pipeline
import sources
from atss.data.image_io import read_image
from atss.errors import InputError
from atss.predictor import Found, Predictor
from atss.utils.drawing import MIN_LONG_SIDE, class_colors
from tests.helpers import DEMO_CONFIG, ROOT, TINY, error_line, pairs, run

# With this threshold random weights find some things in every image; with the usual one none.
LOW = ["--confidence-threshold", 0.0]


@pytest.fixture
def model(tiny_config, shapes, tmp_path):
    """Key-value pairs of a model whose checkpoint is there, and the folder of the images."""
    torch.manual_seed(0)
    DetectionCheckpointer(build_model(tiny_config()), str(tmp_path)).save("model")
    return {
        **TINY, **shapes, "MODEL.WEIGHTS": tmp_path / "model.pth", "MODEL.ATSS.SCORE_THRESH_TEST": 0.0,
        "MODEL.ATSS.TOPK_CANDIDATES_TEST": 20, "TEST.DETECTIONS_PER_IMAGE": 5,
    }  # fmt: skip


def arguments(model, *flags):
    return ["--config-file", DEMO_CONFIG, *map(str, flags), "--opts", *pairs(model)]


def main(model, *flags):
    demo.main(demo.get_parser().parse_args(arguments(model, *flags)))


def images_of(shapes):
    return shapes["DATASETS.REGISTER"][1][2]


def frame(number, width=96, height=64):
    """An image (height, width, 3) with a bright square that moves to the right."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[20:40, 2 * number : 2 * number + 20] = (40, 200, 250)
    return image


def write_video(path, number=10, fps=12.5, width=96, height=64):
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*outputs.CODECS[path.suffix.lower()]), fps, (width, height)
    )
    for i in range(number):
        writer.write(frame(i, width, height))
    writer.release()
    return path


def frames_of(path):
    """The frames of a video, and their rate."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


# Images


def test_folder_in_folder_out(model, shapes, tmp_path):
    result = run("demo/demo.py", *arguments(model, "--input", images_of(shapes), "--output", tmp_path / "out", *LOW))

    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [f"{i:06d}.png" for i in range(8)]
    assert max(cv2.imread(str(written[0])).shape) >= MIN_LONG_SIDE
    assert result.stdout.strip().splitlines()[-1].startswith("8 images in "), result.stdout
    assert ", 40 objects; " in result.stdout and result.stdout.strip().endswith(" the model alone")


def test_glob_in_and_file_out_and_threshold(model, shapes, tmp_path):
    pattern = f"{images_of(shapes)}/00000[3].jpg"
    drawn, plain = tmp_path / "drawn.png", tmp_path / "plain.png"

    main(model, "--input", pattern, "--output", drawn, "--confidence-threshold", 0.0)
    main(model, "--input", pattern, "--output", plain, "--confidence-threshold", 0.99)

    assert (cv2.imread(str(drawn)) != cv2.imread(str(plain))).any()


def test_boxes_names_and_colours_are_drawn():
    """In a BGR image the colours of the classes are those of an RGB one."""
    image = sources.Frame(sources.ImageFile("x.png"), "x.png", np.full((480, 640, 3), 127, np.uint8))
    boxes = np.array([[100.0, 100, 300, 300], [400, 200, 600, 400]], np.float32)
    found = Found(boxes, np.array([0.87, 0.5], np.float32), np.array([0, 1]), ["cat", "dog"])
    colors = class_colors(2)

    drawn = pipeline.draw(image, found, colors)

    for color, (x1, y1, x2, y2) in zip(colors, boxes.astype(int).tolist(), strict=True):
        assert (drawn[y1, x1:x2] == color[::-1]).all() and (drawn[y1:y2, x2 - 1] == color[::-1]).all()
        assert (drawn[y1 - 6, x1 : x1 + 40] != 127).any(), "its label"
        assert (drawn[(y1 + y2) // 2, (x1 + x2) // 2] == 127).all()
    assert (drawn[440:] == 127).all() and (drawn[:, :60] == 127).all()


def test_images_may_be_transparent_turned_deep_or_grey(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGBA", (60, 40), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.fromarray(np.full((40, 60), 65535, np.uint16)).save(folder / "deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "white").save(folder / "turned.jpg", exif=exif)
    Image.new("L", (1, 1), 255).save(folder / "point.gif")

    main(model, "--input", folder, "--output", tmp_path / "out")

    drawn = {path.name: cv2.imread(str(path)) for path in (tmp_path / "out").iterdir()}
    assert {name: image.shape for name, image in drawn.items()} == {
        "clear.png": (427, 640, 3), "deep.png": (427, 640, 3), "turned.png": (640, 427, 3), "point.png": (640, 640, 3)
    }  # fmt: skip
    assert all((image == 255).all() for image in drawn.values())


def test_a_list_on_standard_input(model, shapes, tmp_path, monkeypatch):
    names = f"{images_of(shapes)}/000002.jpg\n\n {images_of(shapes)}/00000[56].jpg \n"

    monkeypatch.setattr(sys, "stdin", io.StringIO(names))
    main(model, "--input", "-", f"{images_of(shapes)}/000001.jpg", "--output", tmp_path / "out")

    assert [path.stem for path in sorted((tmp_path / "out").iterdir())] == ["000001", "000002", "000005", "000006"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(InputError, match="--input -: the list on standard input is empty"):
        main(model, "--input", "-", "--output", tmp_path / "out")


@pytest.mark.parametrize("name", ["nowhere.jpg", "nowhere/*.jpg", "nowhere.mp4", "tests/tools"])
def test_input_without_a_image_is_named(model, name):
    with pytest.raises(InputError, match=name.replace("*", r"\*")):
        main(model, "--input", ROOT / name if name == "tests/tools" else name, "--output", "out")


def test_something_to_look_at_is_asked_for(model):
    with pytest.raises(InputError, match="--input is missing"):
        main(model, "--output", "out")
    with pytest.raises(InputError, match="--webcam goes without"):
        main(model, "--webcam", "--input", "a.jpg", "--output", "out")
    with pytest.raises(InputError, match=r"--video-input none\.mp4: no such video"):
        main(model, "--video-input", "none.mp4", "--output", "out")


def test_unusable_images_are_named_and_the_others_are_drawn(model, shapes, tmp_path, caplog):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    good, json_file = f"{images_of(shapes)}/000001.jpg", tmp_path / "found.json"
    inputs = [tmp_path / "bad.jpg", good, tmp_path / "none.jpg"]
    Image.new("RGB", (8, 8)).save(inputs[-1])
    inputs[-1].write_bytes(inputs[-1].read_bytes()[:150])

    with pytest.raises(InputError, match="2 of 3 inputs could not be read"):
        main(model, "--input", *inputs, "--output", tmp_path / "out", "--json", json_file)

    assert "bad.jpg: the image cannot be read" in caplog.text
    assert "none.jpg: the image cannot be read" in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001.png"]
    assert [image["file_name"] for image in json.loads(json_file.read_text())["images"]] == [good]


def test_weights_are_asked_for(model, shapes, tmp_path):
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS"):
        main({**model, "MODEL.WEIGHTS": "''"}, "--input", images_of(shapes), "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Names of outputs


def output_paths(names, output):
    return outputs.output_paths(
        [sources.Video(name) if name.endswith(sources.VIDEOS) else sources.ImageFile(name) for name in names], output
    )


def test_names_of_outputs_do_not_collide():
    assert output_paths(["a/1.jpg", "b/1.png", "c/1.mp4", "d/1.MP4.mp4", "e/1.mp4"], "out") == [
        "out/1.png", "out/1_2.png", "out/1.mp4", "out/1.MP4.mp4", "out/1_2.mp4"
    ]  # fmt: skip
    assert output_paths(["a/1.jpg"], "out/drawn.jpg") == ["out/drawn.jpg"]
    assert output_paths(["a/1.avi", "a/2.mpg", "a/3.webm"], "out.d/v1.5") == [
        "out.d/v1.5/1.avi", "out.d/v1.5/2.mp4", "out.d/v1.5/3.webm"
    ]  # fmt: skip
    assert output_paths(["a/1.mkv"], "OUT.AVI") == ["OUT.AVI"]


@pytest.mark.parametrize(
    ("names", "output", "text"),
    [
        (["1.jpg", "2.jpg"], "drawn.jpg", "2 inputs need a folder"),
        (["1.jpg"], "drawn.psd", r"cannot write \.psd: images are \.png .*, videos \.mp4 .*folder may end with /"),
        (["1.jpg"], "drawn.mp4", "the input is an image"),
        (["1.mp4"], "drawn.png", r"the input is a video, so name one \(\.mp4"),
        (["1.mp4"], "drawn.wmv", r"cannot write \.wmv"),
    ],
)
def test_outputs_that_make_no_sense(names, output, text):
    with pytest.raises(InputError, match=f"--output {output}: {text}"):
        output_paths(names, output)


def test_no_input_is_overwritten(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for name in ("1.png", "1.mp4"):
        for output in (tmp_path / name, tmp_path, tmp_path / "link"):
            with pytest.raises(InputError, match="is an input, and would be overwritten"):
                output_paths([str(tmp_path / name)], str(output))
    assert output_paths([str(tmp_path / "1.jpg")], str(tmp_path)) == [str(tmp_path / "1.png")]


def test_what_cannot_be_written_ends_in_one_line(model, shapes, tmp_path):
    (tmp_path / "file").touch()
    for flag, path in (("--output", "file/out"), ("--json", "file/found.json"), ("--output", "file/")):
        with pytest.raises(InputError, match=r"file.*: this folder cannot be made"):
            main(model, "--input", images_of(shapes), flag, f"{tmp_path}/{path}")
    result = run("demo/demo.py", *arguments(model, "--input", images_of(shapes), "--json", tmp_path), check=False)
    assert error_line(result) == f"error: --json {tmp_path}: this is a folder; name a file"


# Videos


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".mkv", ".mov"])
def test_video_in_video_out_with_its_rate_and_size(model, tmp_path, suffix):
    video = write_video(tmp_path / f"clip{suffix}")

    main(model, "--input", video, "--output", tmp_path / "out", *LOW)

    before, fps = frames_of(video)
    after, fps_after = frames_of(tmp_path / "out" / f"clip{suffix}")
    assert len(before) == len(after) == 10 and fps == fps_after == 12.5
    assert before[0].shape == after[0].shape == (64, 96, 3)
    assert all(np.abs(a.astype(int) - b).max() > 100 for a, b in zip(before, after, strict=True)), "boxes in each"


def test_where_nothing_is_found_the_video_stays_as_it_is(model, tmp_path):
    video = write_video(tmp_path / "clip.avi")

    main(model, "--input", video, "--output", tmp_path / "other.mp4", "--batch-size", 4)

    before, after = frames_of(video)[0], frames_of(tmp_path / "other.mp4")[0]
    assert all(np.abs(a.astype(int) - b).mean() < 6 for a, b in zip(before, after, strict=True))
    places = [float((image[..., 2] > 150).nonzero()[1].mean()) for image in after]
    assert places == pytest.approx([2 * number + 9.5 for number in range(10)], abs=0.7), "every frame in its place"


def test_video_input_takes_any_extension(model, tmp_path):
    video = write_video(tmp_path / "clip.mp4").rename(tmp_path / "clip.data")

    main(model, "--video-input", video, "--output", tmp_path / "out")

    assert len(frames_of(tmp_path / "out/clip.mp4")[0]) == 10


def test_odd_sizes_lose_a_row_or_column(tmp_path):
    video = outputs.VideoFile(str(tmp_path / "odd.mp4"), 10, (65, 97))
    video.write(frame(0, 97, 65))
    video.close()

    assert frames_of(tmp_path / "odd.mp4")[0][0].shape == (64, 96, 3)


def test_videos_that_were_filmed_upright(model, tmp_path):
    """The matrix in an mp4's track header turns it by 90 degrees; what is written is turned."""
    video = write_video(tmp_path / "clip.mp4", width=96, height=64)
    content = bytearray(video.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">9i", content, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    video.write_bytes(content)

    main(model, "--input", video, "--output", tmp_path / "out.avi", "--json", tmp_path / "found.json")

    assert frames_of(tmp_path / "out.avi")[0][0].shape == (96, 64, 3)
    image = json.loads((tmp_path / "found.json").read_text())["images"][0]
    assert (image["width"], image["height"]) == (64, 96)


def test_images_and_videos_together(model, shapes, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("b.mp4", "d.mp4"):
        write_video(folder / name, number=5)
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(folder / name), frame(3))

    main(model, "--input", folder, "--output", tmp_path / "out", "--batch-size", 4)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.mp4", "c.png", "d.mp4"]
    assert [len(frames_of(tmp_path / "out" / name)[0]) for name in ("b.mp4", "d.mp4")] == [5, 5]
    assert capsys.readouterr().out.startswith("2 images and 10 frames in ")


@pytest.mark.parametrize("content", [b"", b"no video" * 100])
def test_videos_that_cannot_be_opened_are_named_and_the_others_are_done(model, tmp_path, caplog, content):
    bad, good = tmp_path / "bad.mp4", write_video(tmp_path / "good.mp4")
    bad.write_bytes(content)

    with pytest.raises(InputError, match="1 of 2 inputs could not be read"):
        main(model, "--input", bad, good, "--output", tmp_path / "out")

    assert "bad.mp4: the video cannot be opened" in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_truncated_videos_are_done_as_far_as_they_go(model, tmp_path, caplog, suffix):
    video = write_video(tmp_path / f"cut{suffix}", number=30)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    number = len(frames_of(video)[0])
    assert 0 < number < 25

    with pytest.raises(InputError, match="1 of 1 inputs could not be read, or not to the end"):
        main(model, "--input", video, "--output", tmp_path / "out", "--json", tmp_path / "found.json")

    about = "" if suffix == ".avi" else "about "
    assert f"cut{suffix}: only {number} of {about}30 frames could be decoded" in caplog.text
    assert len(frames_of(tmp_path / "out" / f"cut{suffix}")[0]) == number
    assert len(json.loads((tmp_path / "found.json").read_text())["images"]) == number


def test_damaged_frames_are_left_out(model, tmp_path, caplog):
    video = write_video(tmp_path / "hole.avi", number=30)
    content = bytearray(video.read_bytes())
    chunk = content.index(b"00dc", len(content) // 2)
    (size,) = struct.unpack_from("<I", content, chunk + 4)
    content[chunk + 8 : chunk + 8 + size] = bytes(size)
    video.write_bytes(content)

    with pytest.raises(InputError, match="1 of 1 inputs"):
        main(model, "--input", video, "--output", tmp_path / "out.mp4")

    assert "hole.avi: only 29 of 30 frames could be decoded; the video is truncated or damaged" in caplog.text
    assert len(frames_of(tmp_path / "out.mp4")[0]) == 29


def test_the_number_of_frames_is_an_estimate_in_some_files(tmp_path):
    """Of a duration, which may be that of the sound, and a rate, which may vary."""
    video = sources.Video("a.webm")
    video.fps, video.length = 25.0, 250

    video.check(decoded=240, last=9.56)
    video.check(decoded=130, last=9.96)
    with pytest.raises(InputError, match="only 130 of about 250 frames"):
        video.check(decoded=130, last=5.16)
    video.length = None
    video.check(decoded=130, last=5.16)
    with pytest.raises(InputError, match="no frame"):
        video.check(decoded=0, last=0.0)


def test_a_codec_that_is_not_there(model, tmp_path, monkeypatch):
    video = write_video(tmp_path / "clip.mp4")
    monkeypatch.setitem(outputs.CODECS, ".avi", "NONE")

    with pytest.raises(InputError, match=r"out\.avi: a video of 96 x 64 pixels and 12\.5 frames a second cannot be wr"):
        main(model, "--input", video, "--output", tmp_path / "out.avi")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of files")
@pytest.mark.parametrize("suffix", outputs.CODECS)
def test_a_full_disk(tmp_path, suffix):
    import resource

    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    video = outputs.VideoFile(str(tmp_path / f"out{suffix}"), 10, (64, 96))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        for image in noise:
            video.write(image)
        with pytest.raises(InputError, match=rf"out{suffix}: the video could not be written; is the disk full"):
            video.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_videos_may_not_change_their_size(tmp_path):
    video = outputs.VideoFile(str(tmp_path / "out.mp4"), 10, (64, 96))
    video.write(frame(0))
    with pytest.raises(InputError, match="from 96 x 64 pixels to 48 x 32 after 1 frames"):
        video.write(frame(0, 48, 32))


class Capture:
    """In the place of `cv2.VideoCapture`: gives frames, and then no more."""

    def __init__(self, number=5, fps=20.0, opened=True, seconds=0.0):
        self.frames, self.fps, self.opened, self.seconds = [frame(i) for i in range(number)], fps, opened, seconds
        self.released = False

    def isOpened(self):
        return self.opened

    def get(self, key):
        return {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: -1.0, cv2.CAP_PROP_POS_MSEC: 0.0}[key]

    def set(self, key, value):
        return True

    def read(self):
        time.sleep(self.seconds)
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self):
        self.released = True


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 90000.0])
def test_videos_that_do_not_know_their_rate(monkeypatch, fps):
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: Capture(fps=fps))
    video = sources.Video("stream.ts")

    assert len(list(video.frames())) == 5
    assert video.fps == sources.FPS and video.length is None


def test_long_videos_stay_on_disk():
    """Frames are taken as they are needed, but for a few."""
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield len(taken)

    items = pipeline.ahead(pipeline.ahead(endless(), 3), 2)
    for number in range(1, 200):
        assert next(items) == number
        assert len(taken) <= number + 7
    items.close()
    number = len(taken)
    time.sleep(0.05)
    assert len(taken) == number


def test_what_fails_ahead_fails_when_its_turn_comes():
    def items():
        yield 1
        yield 2
        raise InputError("the third")

    got = pipeline.ahead(items(), 10)

    assert [next(got), next(got)] == [1, 2]
    with pytest.raises(InputError, match="the third"):
        next(got)


# COCO's format


def test_the_list_is_what_predict_gives_and_pycocotools_reads_it(model, shapes, tmp_path, capsys, monkeypatch):
    """Without a screen, and without drawing."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(pipeline, "draw", lambda *args: 1 / 0)
    video, path = write_video(tmp_path / "clip.avi", number=3), tmp_path / "lists/found.json"
    paths = [f"{images_of(shapes)}/{i:06d}.jpg" for i in range(3)]

    main(model, "--input", *paths, video, "--json", path, "--batch-size", 4, *LOW)

    coco = COCO(str(path))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [
        "disc", "ring", "box", "frame", "triangle", "cross"
    ]  # fmt: skip
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == [*paths, *(f"{video}#{i:06d}" for i in range(3))]
    predictor = Predictor.load(DEMO_CONFIG, opts=pairs(model))
    expected = predictor.predict([*paths, *frames_of(video)[0]], min_score=0.0)
    for image, found in zip(images, expected, strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(found) == 5
        x, y, width, height = np.array([annotation["bbox"] for annotation in annotations]).T
        assert np.allclose(np.stack([x, y, x + width, y + height], 1), found.boxes, atol=0.01)
        assert np.allclose([annotation["score"] for annotation in annotations], found.scores, atol=1e-5)
        names = [coco.cats[annotation["category_id"]]["name"] for annotation in annotations]
        assert names == found.names
        assert np.allclose([annotation["area"] for annotation in annotations], width * height, atol=1)
        assert {annotation["iscrowd"] for annotation in annotations} == {0}
    height, width = read_image(images[0]).shape[:2]
    assert (images[0]["width"], images[0]["height"]) == (width, height)
    assert (images[-1]["width"], images[-1]["height"]) == (96, 64)
    assert list((tmp_path / "lists").iterdir()) == [path], "and no temporary file"


def test_an_empty_list_is_a_list(model, shapes, tmp_path):
    main(model, "--input", f"{images_of(shapes)}/000001.jpg", "--json", tmp_path / "found.json")

    coco = COCO(str(tmp_path / "found.json"))
    assert len(coco.imgs) == 1 and not coco.anns and len(coco.cats) == 6


def test_the_list_is_whole_or_not_there(model, shapes, tmp_path, monkeypatch):
    (tmp_path / "found.json").write_text("of an earlier run")
    monkeypatch.setattr(Predictor, "detect", lambda *args: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        main(model, "--input", images_of(shapes), "--json", tmp_path / "found.json")

    assert (tmp_path / "found.json").read_text() == "of an earlier run"
    assert [path.name for path in tmp_path.iterdir() if "json" in path.name] == ["found.json"]


# Ctrl-C


def test_ctrl_c_completes_the_files(model, tmp_path):
    video = write_video(tmp_path / "long.avi", number=3000)
    flags = ["--input", video, "--output", tmp_path / "out.mp4", "--json", tmp_path / "found.json"]
    process = subprocess.Popen(
        [sys.executable, "demo/demo.py", *arguments(model, *flags)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "out.mp4").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()

    assert process.returncode == 130, err
    assert "Traceback" not in err and err.strip().splitlines()[-1].startswith("interrupted: "), err
    number = len(frames_of(tmp_path / "out.mp4")[0])
    assert 0 < number < 3000 and f"{number} frames in " in out
    assert len(COCO(str(tmp_path / "found.json")).imgs) in (number, number + 1)


# Cameras and windows


@pytest.fixture
def camera(monkeypatch):
    """Function: `Capture` to use as the camera."""

    def connect(capture):
        numbers, real = [], cv2.VideoCapture
        monkeypatch.setattr(
            cv2, "VideoCapture", lambda x: (numbers.append(x), capture)[1] if isinstance(x, int) else real(x)
        )
        return numbers

    return connect


def test_a_camera_is_recorded_until_it_ends(model, tmp_path, camera, caplog):
    """In real time: what comes slower than the camera's rate is written several times."""
    capture = Capture(number=6, fps=50.0, seconds=0.1)
    numbers = camera(capture)

    with pytest.raises(InputError, match="1 of 1 inputs"):
        main(model, "--webcam", "--output", tmp_path / "out", "--json", tmp_path / "found.json")

    assert numbers == [0] and capture.released
    assert "webcam0: the camera gives no image after 6 frames" in caplog.text
    assert len(frames_of(tmp_path / "out/webcam0.mp4")[0]) > 25
    images = json.loads((tmp_path / "found.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"webcam0#{i:06d}" for i in range(6)]


def test_a_camera_that_is_not_there(model, tmp_path, camera):
    camera(Capture(opened=False))

    with pytest.raises(InputError, match="--webcam 3: no such camera"):
        main(model, "--webcam", 3, "--output", tmp_path / "out")


def test_without_a_screen_it_asks_for_an_output(model, shapes, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="--output"):
        main(model, "--input", images_of(shapes))


@pytest.fixture
def screen(monkeypatch):
    """A window that keeps what it shows: `shown`, `keys` to be pressed in turn (-1: none), and `open`."""

    class Screen:
        shown, keys, waits, open = [], [], [], 1.0

        def wait(self, milliseconds):
            self.waits.append(milliseconds)
            return self.keys.pop(0) if self.keys else -1

    screen = Screen()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: screen.shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", screen.wait)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: screen.open)
    return screen


def test_a_window_shows_images_until_a_key_and_all_until_escape(model, shapes, screen):
    screen.keys[:] = [-1, -1, ord("x"), -1, outputs.ESCAPE]

    main(model, "--input", images_of(shapes))

    assert len(screen.shown) == 2 and max(screen.shown[0].shape) >= MIN_LONG_SIDE


def test_closing_the_window_ends_it(model, shapes, screen, tmp_path):
    screen.open = 0.0

    main(model, "--input", images_of(shapes))
    assert len(screen.shown) == 1
    main(model, "--input", write_video(tmp_path / "clip.mp4"))
    assert len(screen.shown) == 2


def test_a_window_shows_videos_at_their_rate(model, tmp_path, screen):
    main(model, "--input", write_video(tmp_path / "clip.mp4", number=6, fps=2.0))

    assert len(screen.shown) == 6 and len(screen.waits) == 6
    assert all(1 <= wait <= 500 for wait in screen.waits) and max(screen.waits) > 1


def test_a_camera_is_shown_until_escape(model, screen, camera):
    capture = Capture(number=100)
    camera(capture)
    screen.keys[:] = [-1, -1, outputs.ESCAPE]

    main(model, "--webcam")

    assert len(screen.shown) == 3 and capture.released and len(capture.frames) == 97
    assert screen.waits == [1, 1, 1]
