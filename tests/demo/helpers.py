"""The demo's command in this process, and small videos and cameras."""

import time

import cv2
import numpy as np

from atss.commands import predict
from atss.demo import outputs
from tests.helpers import DEMO_CONFIG, pairs

# With this threshold random weights detect something in every image; with the default one nothing.
LOW = ["--confidence-threshold", 0.0]


def arguments(model, *flags):
    return ["--config-file", DEMO_CONFIG, *map(str, flags), "--opts", *pairs(model)]


def main(model, *flags):
    predict.main(predict.get_parser().parse_args(arguments(model, *flags)))


def images_of(shapes):
    """Folder of eight images."""
    return shapes["DATASETS.REGISTER"][1][2]


def frame(number, width=96, height=64):
    """An image (height, width, 3) with a bright square that moves to the right."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[20:40, 2 * number : 2 * number + 20] = (40, 200, 250)
    return image


def write_video(path, number=10, fps=12.5, width=96, height=64):
    codec = cv2.VideoWriter_fourcc(*outputs.CODECS[path.suffix.lower()])
    writer = cv2.VideoWriter(str(path), codec, fps, (width, height))
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


class Capture:
    """Replaces `cv2.VideoCapture`: returns a number of frames, and then fails."""

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
