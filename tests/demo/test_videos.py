"""Videos and cameras, read, drawn and written; damaged ones too."""

import json
import struct

import cv2
import numpy as np
import pytest

from atss.demo import sources
from atss.errors import InputError
from tests.demo.helpers import LOW, Capture, frame, frames_of, main, write_video


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".mkv", ".mov"])
def test_drawn_videos_keep_their_rate_and_size(model, tmp_path, suffix):
    video = write_video(tmp_path / f"clip{suffix}")

    main(model, "--input", video, "--output", tmp_path / "out", *LOW)

    before, fps = frames_of(video)
    after, fps_after = frames_of(tmp_path / "out" / f"clip{suffix}")
    assert len(before) == len(after) == 10 and fps == fps_after == 12.5
    assert before[0].shape == after[0].shape == (64, 96, 3)
    assert all(np.abs(a.astype(int) - b).max() > 100 for a, b in zip(before, after, strict=True)), "boxes in each"


def test_without_detections_a_video_of_any_extension_is_copied(model, tmp_path):
    video = write_video(tmp_path / "clip.avi").rename(tmp_path / "clip.data")

    main(model, "--video-input", video, "--output", tmp_path / "out", "--batch-size", 4)

    before, after = frames_of(video)[0], frames_of(tmp_path / "out/clip.mp4")[0]
    assert all(np.abs(a.astype(int) - b).mean() < 6 for a, b in zip(before, after, strict=True))
    centers = [float((image[..., 2] > 150).nonzero()[1].mean()) for image in after]
    assert centers == pytest.approx([2 * number + 9.5 for number in range(10)], abs=0.7), "the order is kept"


def test_rotated_videos_are_turned_upright(model, tmp_path):
    """The matrix in an mp4's track header rotates the frames by 90 degrees."""
    video = write_video(tmp_path / "clip.mp4", width=96, height=64)
    content = bytearray(video.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">9i", content, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    video.write_bytes(content)

    main(model, "--input", video, "--output", tmp_path / "out.avi", "--json", tmp_path / "list.json")

    assert frames_of(tmp_path / "out.avi")[0][0].shape == (96, 64, 3)
    image = json.loads((tmp_path / "list.json").read_text())["images"][0]
    assert (image["width"], image["height"]) == (64, 96)


def test_images_and_videos_together(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for video, image in (("b.mp4", "a.png"), ("d.mp4", "c.png")):
        write_video(folder / video, number=5)
        cv2.imwrite(str(folder / image), frame(3))

    main(model, "--input", folder, "--output", tmp_path / "out", "--batch-size", 4)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.mp4", "c.png", "d.mp4"]
    assert [len(frames_of(tmp_path / "out" / name)[0]) for name in ("b.mp4", "d.mp4")] == [5, 5]
    assert capsys.readouterr().out.startswith("2 images and 10 frames in ")


def test_videos_that_cannot_be_opened_are_named_and_the_others_drawn(model, tmp_path, caplog):
    good = write_video(tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_bytes(b"no video" * 100)

    with pytest.raises(InputError, match="2 of 3 inputs could not be read"):
        main(model, "--input", tmp_path / "empty.mp4", good, tmp_path / "text.mp4", "--output", tmp_path / "out")

    assert all(f"{name}.mp4: the video cannot be opened" in caplog.text for name in ("empty", "text"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_truncated_videos_are_drawn_to_their_end(model, tmp_path, caplog, suffix):
    video = write_video(tmp_path / f"cut{suffix}", number=30)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 6 // 10])
    number = len(frames_of(video)[0])
    assert 0 < number < 25

    with pytest.raises(InputError, match="1 of 1 inputs could not be read completely"):
        main(model, "--input", video, "--output", tmp_path / "out", "--json", tmp_path / "list.json")

    about = "" if suffix == ".avi" else "about "
    assert f"cut{suffix}: only {number} of {about}30 frames could be decoded" in caplog.text
    assert len(frames_of(tmp_path / "out" / f"cut{suffix}")[0]) == number
    assert len(json.loads((tmp_path / "list.json").read_text())["images"]) == number


def test_damaged_frames_are_skipped(model, tmp_path, caplog):
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


def test_the_number_of_frames_is_an_estimate_in_some_containers():
    """It is computed from a duration, which may be that of the sound, and a rate, which may vary."""
    video = sources.Video("a.webm")
    video.fps, video.length = 25.0, 250

    video.check_length(decoded=240, last_time=9.56)
    video.check_length(decoded=130, last_time=9.96)
    with pytest.raises(InputError, match="only 130 of about 250 frames"):
        video.check_length(decoded=130, last_time=5.16)
    video.length = None
    video.check_length(decoded=130, last_time=5.16)
    with pytest.raises(InputError, match="no frame"):
        video.check_length(decoded=0, last_time=0.0)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 90000.0])
def test_videos_without_a_frame_rate(monkeypatch, fps):
    monkeypatch.setattr(cv2, "VideoCapture", lambda path: Capture(fps=fps))
    video = sources.Video("stream.ts")

    assert len(list(video.frames())) == 5
    assert video.fps == sources.DEFAULT_FPS and video.length is None


def test_a_camera_is_recorded_in_real_time_until_it_stops(model, tmp_path, camera, caplog):
    """Frames that arrive more slowly than the camera's rate are repeated."""
    capture = Capture(number=6, fps=50.0, seconds=0.1)
    numbers = camera(capture)

    with pytest.raises(InputError, match="1 of 1 inputs"):
        main(model, "--webcam", "--output", tmp_path / "out", "--json", tmp_path / "list.json")

    assert numbers == [0] and capture.released
    assert "webcam0: the camera stopped after 6 frames" in caplog.text
    assert len(frames_of(tmp_path / "out/webcam0.mp4")[0]) > 25
    images = json.loads((tmp_path / "list.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"webcam0#{i:06d}" for i in range(6)]


def test_a_missing_camera(model, camera):
    camera(Capture(opened=False))

    with pytest.raises(InputError, match="--webcam 3: no such camera"):
        main(model, "--webcam", 3, "--output", "out")
