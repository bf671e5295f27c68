"""Names of output files, video files, the window and the list in COCO format."""

import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

from atss.data.image_io import read_image
from atss.demo import outputs, pipeline, sources
from atss.errors import InputError
from atss.predictor import Predictor
from atss.utils.drawing import MIN_LONG_SIDE
from tests.demo.helpers import LOW, Capture, frame, frames_of, images_of, main, write_video
from tests.helpers import DEMO_CONFIG, pairs


def output_paths(names, output):
    found = [sources.Video(name) if name.endswith(sources.VIDEOS) else sources.ImageFile(name) for name in names]
    return outputs.output_paths(found, output)


@pytest.mark.parametrize(
    ("names", "output", "paths"),
    [
        ("a/1.jpg b/1.png", "out", "out/1.png out/1_2.png"),
        ("c/1.mp4 d/1.MP4.mp4 e/1.mp4 e/1.jpg", "out", "out/1.mp4 out/1.MP4.mp4 out/1_2.mp4 out/1.png"),
        ("a/1.jpg", "out/drawn.jpg", "out/drawn.jpg"),
        ("a/1.avi a/2.mpg a/3.webm", "out.d/v1.5", "out.d/v1.5/1.avi out.d/v1.5/2.mp4 out.d/v1.5/3.webm"),
        ("a/1.mkv", "OUT.AVI", "OUT.AVI"),
    ],
)
def test_names_of_outputs_do_not_collide(names, output, paths):
    assert output_paths(names.split(), output) == paths.split()


@pytest.mark.parametrize(
    ("names", "output", "text"),
    [
        (["1.jpg", "2.jpg"], "drawn.jpg", "2 inputs need a folder"),
        (["1.jpg"], "drawn.psd", r"cannot write \.psd: images are \.png .*, videos \.mp4 .*folder may end with /"),
        (["1.jpg"], "drawn.mp4", r"the input is an image, so name one \(\.png"),
        (["1.mp4"], "drawn.png", r"the input is a video, so name one \(\.mp4"),
        (["1.mp4"], "drawn.wmv", r"cannot write \.wmv"),
    ],
)
def test_outputs_that_make_no_sense(names, output, text):
    with pytest.raises(InputError, match=f"--output {output}: {text}"):
        output_paths(names, output)


def test_inputs_are_not_overwritten(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for name in ("1.png", "1.mp4"):
        for output in (tmp_path / name, tmp_path, tmp_path / "link"):
            with pytest.raises(InputError, match="is an input, and would be overwritten"):
                output_paths([str(tmp_path / name)], str(output))
    assert output_paths([str(tmp_path / "1.jpg")], str(tmp_path)) == [str(tmp_path / "1.png")]


# Video files


def test_odd_sizes_lose_a_row_or_column_and_videos_may_not_change_their_size(tmp_path):
    video = outputs.VideoWriter(str(tmp_path / "odd.mp4"), 10, (65, 97))
    video.write(frame(0, 97, 65))
    with pytest.raises(InputError, match="from 97 x 65 pixels to 48 x 32 after 1 frames"):
        video.write(frame(0, 48, 32))
    video.close()

    assert frames_of(tmp_path / "odd.mp4")[0][0].shape == (64, 96, 3)


def test_a_missing_codec(model, tmp_path, monkeypatch):
    video = write_video(tmp_path / "clip.mp4")
    monkeypatch.setitem(outputs.CODECS, ".avi", "NONE")

    with pytest.raises(InputError, match=r"out\.avi: a video of 96 x 64 pixels and 12\.5 frames per second cannot be "):
        main(model, "--input", video, "--output", tmp_path / "out.avi")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file size limits")
@pytest.mark.parametrize("suffix", outputs.CODECS)
def test_a_full_disk(tmp_path, suffix):
    import resource

    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    video = outputs.VideoWriter(str(tmp_path / f"out{suffix}"), 10, (64, 96))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        for image in noise:
            video.write(image)
        with pytest.raises(InputError, match=rf"out{suffix}: the video could not be written; is the disk full"):
            video.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Window


def test_without_a_screen_an_output_is_required(model, shapes, no_screen):
    with pytest.raises(InputError, match="--output"):
        main(model, "--input", images_of(shapes))


def test_a_window_shows_an_image_until_a_key_and_ends_with_escape(model, shapes, screen):
    screen.keys[:] = [-1, -1, ord("x"), -1, outputs.ESCAPE]

    main(model, "--input", images_of(shapes))

    assert len(screen.shown) == 2 and max(screen.shown[0].shape) >= MIN_LONG_SIDE


def test_a_window_shows_videos_at_their_rate_until_it_is_closed(model, shapes, tmp_path, screen):
    video = write_video(tmp_path / "clip.mp4", number=6, fps=2.0)
    main(model, "--input", video)

    assert len(screen.shown) == 6 and len(screen.waits) == 6
    assert all(1 <= wait <= 500 for wait in screen.waits) and max(screen.waits) > 1

    screen.open = 0.0
    for source in (images_of(shapes), video):
        screen.shown.clear()
        main(model, "--input", source)
        assert len(screen.shown) == 1


def test_a_window_shows_a_camera_until_escape(model, screen, camera):
    capture = Capture(number=100)
    camera(capture)
    screen.keys[:] = [-1, -1, outputs.ESCAPE]

    main(model, "--webcam")

    assert len(screen.shown) == 3 and capture.released and len(capture.frames) == 97
    assert screen.waits == [1, 1, 1]


# COCO format


def test_the_list_equals_predict_and_can_be_read_by_pycocotools(model, shapes, tmp_path, no_screen, monkeypatch):
    """It needs no screen, and nothing is drawn."""
    monkeypatch.setattr(pipeline, "draw", lambda *args: 1 / 0)
    video, path = write_video(tmp_path / "clip.avi", number=3), tmp_path / "lists/list.json"
    paths = [f"{images_of(shapes)}/{i:06d}.jpg" for i in range(3)]

    main(model, "--input", *paths, video, "--json", path, "--batch-size", 4, *LOW)

    coco = COCO(str(path))
    names = ["disc", "ring", "box", "frame", "triangle", "cross"]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == names
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == [*paths, *(f"{video}#{i:06d}" for i in range(3))]
    predictor = Predictor.load(DEMO_CONFIG, opts=pairs(model))
    expected = predictor.predict([*paths, *frames_of(video)[0]], min_score=0.0)
    for image, detections in zip(images, expected, strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(detections) == 5
        x, y, width, height = np.array([annotation["bbox"] for annotation in annotations]).T
        assert np.allclose(np.stack([x, y, x + width, y + height], 1), detections.boxes, atol=0.01)
        assert np.allclose([annotation["score"] for annotation in annotations], detections.scores, atol=1e-5)
        names = [coco.cats[annotation["category_id"]]["name"] for annotation in annotations]
        assert names == detections.names
        assert np.allclose([annotation["area"] for annotation in annotations], width * height, atol=1)
        assert {annotation["iscrowd"] for annotation in annotations} == {0}
    height, width = read_image(paths[0]).shape[:2]
    assert (images[0]["width"], images[0]["height"]) == (width, height)
    assert (images[-1]["width"], images[-1]["height"]) == (96, 64)
    assert list((tmp_path / "lists").iterdir()) == [path], "and no temporary file"


def test_a_list_without_detections_and_one_that_fails(model, shapes, tmp_path, monkeypatch):
    path = tmp_path / "list.json"
    main(model, "--input", f"{images_of(shapes)}/000001.jpg", "--json", path)

    coco, before = COCO(str(path)), path.read_text()
    assert len(coco.imgs) == 1 and not coco.anns and len(coco.cats) == 6

    monkeypatch.setattr(Predictor, "detect", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(model, "--input", images_of(shapes), "--json", path)

    assert path.read_text() == before, "the list of the earlier run"
    assert [path.name for path in tmp_path.iterdir() if "json" in path.name] == ["list.json"]
