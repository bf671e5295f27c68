"""A model with random weights, a camera and a window."""

import cv2
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from atss.config import load_config
from tests.helpers import DEMO_CONFIG, TINY, pairs


@pytest.fixture(scope="session")
def model(once, shapes):
    """Key-value pairs of a model with a checkpoint."""

    def fill(folder):
        torch.manual_seed(0)
        cfg = load_config(DEMO_CONFIG, pairs({**TINY, **shapes}))
        DetectionCheckpointer(build_model(cfg), str(folder)).save("model")

    return {
        **TINY, **shapes, "MODEL.WEIGHTS": once("demo_model", fill) / "model.pth", "MODEL.ATSS.SCORE_THRESH_TEST": 0.0,
        "MODEL.ATSS.TOPK_CANDIDATES_TEST": 20, "TEST.DETECTIONS_PER_IMAGE": 5,
    }  # fmt: skip


@pytest.fixture
def no_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


@pytest.fixture
def camera(monkeypatch):
    """Function: `Capture` to use as the camera -> list, to which the numbers of opened cameras are appended."""

    def connect(capture):
        numbers, video_capture = [], cv2.VideoCapture

        def opened(source):
            if not isinstance(source, int):
                return video_capture(source)
            numbers.append(source)
            return capture

        monkeypatch.setattr(cv2, "VideoCapture", opened)
        return numbers

    return connect


class Screen:
    """Keeps what a window shows: `shown`; `keys` are pressed one after the other (-1: none); `open` is 0 or 1."""

    def __init__(self):
        self.shown, self.keys, self.waits, self.open = [], [], [], 1.0

    def wait(self, milliseconds):
        self.waits.append(milliseconds)
        return self.keys.pop(0) if self.keys else -1


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", lambda *args: None)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setattr(cv2, "imshow", lambda name, image: screen.shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", screen.wait)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *args: screen.open)
    return screen
