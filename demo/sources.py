"""Images, videos and cameras as streams of frames."""

import glob
import logging
import os
import sys
from typing import NamedTuple

import cv2
import numpy as np

from atss.data.image_io import read_image
from atss.errors import InputError

# What a folder is searched for.
IMAGES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".avif",
)  # fmt: skip
VIDEOS = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts", ".m2ts", ".ogv",
)  # fmt: skip
# Containers that say how many frames they hold. Of others OpenCV takes the length, often that of the sound, times the
# rate, which varies in some.
COUNTED = (".mp4", ".m4v", ".mov", ".avi", ".3gp")
# So much of a video must be there where the number of its frames is such an estimate.
ESTIMATE = 0.9
# Frames in a row that may be damaged until the rest is given up.
MAX_DAMAGED = 250
# Frames a second of a video or a camera that does not say.
FPS = 30.0
MAX_FPS = 1000.0

logger = logging.getLogger("atss.demo")


class Frame(NamedTuple):
    """An image to look at.

    source: where it comes from.
    name: path of the image; of the video with the number of the frame, from 0.
    image: (H, W, 3) uint8 array in BGR order.
    """

    source: object
    name: str
    image: np.ndarray


class ImageFile:
    """An image file: a stream of one frame."""

    is_video = is_live = False
    length = 1

    def __init__(self, path):
        self.path = path

    def frames(self):
        """Yield its `Frame`.

        Raises:
            InputError: it cannot be read.
        """
        yield Frame(self, self.path, read_image(self.path))


class Video:
    """A video file.

    Once its frames are read, `fps` is their rate a second, and `length` the number of frames that the file announces,
    None where it does not.
    """

    is_video, is_live = True, False
    length, fps = None, FPS

    def __init__(self, path):
        self.path = path

    def open(self):
        """The `cv2.VideoCapture`, and `fps` and `length` from it.

        Raises:
            InputError: OpenCV cannot open it.
        """
        capture = cv2.VideoCapture(self.path)
        if not capture.isOpened():
            raise InputError(
                f"{self.path}: the video cannot be opened: damaged, or of a format that OpenCV does not know"
            )
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(length) if length > 0 else None
        self.fps = rate_of(capture)
        return capture

    def frames(self):
        """Yield every `Frame` that can be decoded, upright.

        Raises:
            InputError: the video cannot be opened, no frame or (at the end) fewer than announced could be decoded.
        """
        capture = self.open()
        decoded = damaged = 0
        last = 0.0
        try:
            while damaged <= MAX_DAMAGED:
                there, image = capture.read()
                if there:
                    yield Frame(self, f"{self.path}#{decoded:06d}", image)
                    last = max(last, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                    decoded, damaged = decoded + 1, 0
                elif self.length and decoded + damaged < self.length:
                    damaged += 1
                else:
                    break
        finally:
            capture.release()
        self.check(decoded, last)

    def check(self, decoded, last):
        """See that the number of frames is that announced, and their time, in seconds, where that is an estimate.

        Raises:
            InputError: it is not.
        """
        if not decoded:
            raise InputError(f"{self.path}: no frame of the video could be decoded")
        exact = self.path.lower().endswith(COUNTED)
        reached, needed = (decoded, 1.0) if exact else (max(decoded, last * self.fps + 1), ESTIMATE)
        if self.length and reached < needed * self.length:
            about = "" if exact else "about "
            raise InputError(
                f"{self.path}: only {decoded} of {about}{self.length} frames could be decoded; the video is truncated "
                "or damaged"
            )


class Webcam:
    """A camera by its number; it is opened at once.

    Raises:
        InputError: it cannot be opened.
    """

    is_video = is_live = True
    length = None

    def __init__(self, number):
        self.path = f"webcam{number}"
        self.capture = cv2.VideoCapture(number)
        if not self.capture.isOpened():
            raise InputError(f"--webcam {number}: no such camera, or another program uses it")
        self.capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else what is seen is some frames old
        self.fps = rate_of(self.capture)

    def frames(self):
        """Yield `Frame`s as long as the camera gives any.

        Raises:
            InputError: it gives no more.
        """
        number = 0
        try:
            while True:
                there, image = self.capture.read()
                if not there:
                    raise InputError(f"{self.path}: the camera gives no image after {number} frames")
                yield Frame(self, f"{self.path}#{number:06d}", image)
                number += 1
        finally:
            self.capture.release()


def rate_of(capture):
    """Frames a second of a `cv2.VideoCapture`; `FPS` where it says none, or what no video has."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0 < fps < MAX_FPS else FPS


def find_sources(inputs, video_input=None, webcam=None):
    """What the command line names.

    Args:
        inputs: list of images, videos, folders, glob patterns and "-", for a list of these on standard input.
        video_input: path of a video, of any extension, or None.
        webcam: number of a camera, or None.

    Returns:
        list of `ImageFile` and `Video`, or of one `Webcam`.

    Raises:
        InputError: there is none, or one is missing.
    """
    if webcam is not None:
        if inputs or video_input:
            raise InputError("--webcam goes without --input and --video-input")
        return [Webcam(webcam)]
    if not inputs and not video_input:
        raise InputError("--input is missing: name images, videos or folders, or use --video-input or --webcam")
    sources = []
    for name in inputs:
        for path in listed(sys.stdin) if name == "-" else [name]:
            sources += [Video(f) if f.lower().endswith(VIDEOS) else ImageFile(f) for f in find_files(path)]
    if video_input:
        if not os.path.isfile(video_input):
            raise InputError(f"--video-input {video_input}: no such video")
        sources.append(Video(video_input))
    return sources


def listed(file):
    """The lines of a file that are not empty."""
    lines = [line.strip() for line in file if line.strip()]
    if not lines:
        raise InputError("--input -: the list on standard input is empty; give a path a line")
    return lines


def find_files(name):
    """Files that a path, a folder or a glob pattern names, in order."""
    name = os.path.expanduser(name)
    if os.path.isdir(name):
        found = sorted(os.path.join(name, f) for f in os.listdir(name) if f.lower().endswith(IMAGES + VIDEOS))
        if not found:
            raise InputError(f"--input {name}: no image and no video in this folder")
        return found
    found = [name] if os.path.isfile(name) else sorted(filter(os.path.isfile, glob.glob(name)))
    if not found:
        raise InputError(f"--input {name}: no such image or video")
    return found


def read(sources, prepare, failed):
    """Yield (`Frame`, `prepare` of its image) of all sources, one after the other.

    What cannot be read, or not to its end, is named in the log and goes into `failed`.
    """
    for source in sources:
        try:
            for frame in source.frames():
                yield frame, prepared(frame, prepare)
        except InputError as error:
            logger.error("%s", error)
            failed.append(source)


def prepared(frame, prepare):
    try:
        return prepare(frame.image)
    except InputError as error:
        raise InputError(f"{frame.name}: {error}") from error
