"""Images, videos and cameras as streams of frames."""

import glob
import logging
import os
import sys
from typing import NamedTuple

import cv2
import numpy as np

from ..data.image_io import MAX_PIXELS, read_image
from ..errors import InputError

# The extensions that a folder is searched for.
IMAGES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".avif",
)  # fmt: skip
VIDEOS = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ogv",
)  # fmt: skip
# Containers that store their number of frames. For the others OpenCV estimates it: duration times frame rate, although
# the duration may be that of the sound, and the rate may vary.
COUNTED = (".mp4", ".m4v", ".mov", ".avi", ".3gp")
# A video of which less than this share of an estimated length can be decoded is truncated.
MIN_SHARE = 0.9
# A video is given up after this many damaged frames in a row.
MAX_DAMAGED = 250
# Frames per second of videos and cameras that state none, or more than MAX_FPS.
DEFAULT_FPS, MAX_FPS = 30.0, 1000.0

logger = logging.getLogger("atss.demo")


class Frame(NamedTuple):
    """An image file's image, or a frame of a video or camera.

    source: its `ImageFile`, `Video` or `Webcam`.
    name: path of the image; for a video, its path and the number of the frame from 0, as in `video.mp4#000012`.
    image: (H, W, 3) uint8 array in BGR order.
    """

    source: object
    name: str
    image: np.ndarray


class ImageFile:
    """An image file: a stream of one frame. `max_pixels` is the maximum number of its pixels."""

    is_video = is_live = False
    length = 1
    max_pixels = MAX_PIXELS

    def __init__(self, path):
        self.path = path

    def frames(self):
        """Yield its `Frame`. An image that cannot be read raises `InputError`."""
        yield Frame(self, self.path, read_image(self.path, max_pixels=self.max_pixels))


class Video:
    """A video file.

    `frames` sets `fps`, the frames per second, and `length`, the number of frames according to the file, or None.
    """

    is_video, is_live = True, False
    length, fps = None, DEFAULT_FPS

    def __init__(self, path):
        self.path = path

    def frames(self):
        """Yield every `Frame` that can be decoded, upright.

        Raises:
            InputError: the video cannot be opened; or, at its end, frames are missing.
        """
        capture = cv2.VideoCapture(self.path)
        if not capture.isOpened():
            raise InputError(
                f"{self.path}: the video cannot be opened: damaged, or of a format that OpenCV does not know"
            )
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(length) if length > 0 else None
        self.fps = frame_rate(capture)
        decoded = damaged = 0
        last_time = 0.0
        try:
            while damaged <= MAX_DAMAGED:
                ok, image = capture.read()
                if ok:
                    yield Frame(self, f"{self.path}#{decoded:06d}", image)
                    last_time = max(last_time, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                    decoded, damaged = decoded + 1, 0
                elif self.length and decoded + damaged < self.length:
                    damaged += 1
                else:
                    break
        finally:
            capture.release()
        self.check_length(decoded, last_time)

    def check_length(self, decoded, last_time):
        """Raise `InputError` if frames are missing.

        `last_time`, of the last decoded frame in seconds, counts, too, where the number of frames is an estimate.
        """
        if not decoded:
            raise InputError(f"{self.path}: no frame of the video could be decoded")
        exact = self.path.lower().endswith(COUNTED)
        reached, share = (decoded, 1.0) if exact else (max(decoded, last_time * self.fps + 1), MIN_SHARE)
        if self.length and reached < share * self.length:
            about = "" if exact else "about "
            raise InputError(
                f"{self.path}: only {decoded} of {about}{self.length} frames could be decoded; the video is truncated "
                "or damaged"
            )


class Webcam:
    """A camera, opened by its number; one that cannot be opened raises `InputError`."""

    is_video = is_live = True
    length = None

    def __init__(self, number):
        self.path = f"webcam{number}"
        self.capture = cv2.VideoCapture(number)
        if not self.capture.isOpened():
            raise InputError(f"--webcam {number}: no such camera, or another program uses it")
        self.capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # buffered frames would be old ones
        self.fps = frame_rate(self.capture)

    def frames(self):
        """Yield `Frame`s until the camera stops, which raises `InputError`."""
        number = 0
        try:
            while True:
                ok, image = self.capture.read()
                if not ok:
                    raise InputError(f"{self.path}: the camera stopped after {number} frames")
                yield Frame(self, f"{self.path}#{number:06d}", image)
                number += 1
        finally:
            self.capture.release()


def frame_rate(capture):
    """Frames per second of a `cv2.VideoCapture`."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps < MAX_FPS else DEFAULT_FPS


def find_sources(inputs, video_input=None, webcam=None):
    """The sources that the command line names: a list of `ImageFile` and `Video`, or of one `Webcam`.

    Args:
        inputs: list of images, videos, folders, glob patterns and "-", for a list of these on standard input.
        video_input: path of a video with any extension, or None.
        webcam: number of a camera, or None.

    Raises:
        InputError: no source is named, or one does not exist.
    """
    if webcam is not None:
        if inputs or video_input:
            raise InputError("--webcam cannot be combined with --input or --video-input")
        return [Webcam(webcam)]
    if not inputs and not video_input:
        raise InputError("--input is missing: name images, videos or folders, or use --video-input or --webcam")
    names = []
    for name in inputs:
        names += lines_of(sys.stdin) if name == "-" else [name]
    files = [file for name in names for file in find_files(name)]
    sources = [Video(file) if file.lower().endswith(VIDEOS) else ImageFile(file) for file in files]
    if video_input:
        if not os.path.isfile(video_input):
            raise InputError(f"--video-input {video_input}: no such video")
        sources.append(Video(video_input))
    return sources


def lines_of(file):
    lines = [line.strip() for line in file if line.strip()]
    if not lines:
        raise InputError("--input -: the list on standard input is empty; give one path per line")
    return lines


def find_files(name):
    """The files that a path, a folder or a glob pattern names, sorted."""
    name = os.path.expanduser(name)
    if os.path.isdir(name):
        files = sorted(os.path.join(name, f) for f in os.listdir(name) if f.lower().endswith(IMAGES + VIDEOS))
        if not files:
            raise InputError(f"--input {name}: no image and no video in this folder")
        return files
    files = [name] if os.path.isfile(name) else sorted(filter(os.path.isfile, glob.glob(name)))
    if not files:
        raise InputError(f"--input {name}: no such image or video")
    return files


def read_frames(sources, prepare, failed):
    """Yield (`Frame`, `prepare(frame.image)`) for all sources, one after the other.

    A source that cannot be read completely is logged and appended to `failed`.
    """
    for source in sources:
        try:
            for frame in source.frames():
                try:
                    inputs = prepare(frame.image)
                except InputError as error:
                    raise InputError(f"{frame.name}: {error}") from error
                yield frame, inputs
        except InputError as error:
            logger.error("%s", error)
            failed.append(source)
