"""Reads, detects, draws and writes at the same time."""

import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import cv2
import tqdm

from ..utils.drawing import MIN_LONG_SIDE, class_colors, draw_boxes
from .sources import read_frames


@dataclass
class Statistics:
    """What was processed, and the time that it took in total and in the model."""

    images: int = 0
    frames: int = 0  # of videos and cameras
    detections: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    interrupted: bool = False  # by Ctrl-C
    failed: list = field(default_factory=list)  # sources that could not be read completely

    def summary(self):
        """One line of text."""
        parts = [plural(n, kind) for n, kind in ((self.images, "image"), (self.frames, "frame")) if n]
        line = f"{' and '.join(parts) or 'nothing'} in {self.seconds:.1f} s, {plural(self.detections, 'detection')}"
        number = self.images + self.frames
        if not number:
            return line
        total, model = number / self.seconds, number / self.model_seconds
        return f"{line}; {total:.1f} {'frames' if self.frames else 'images'} per second, {model:.1f} in the model alone"


def plural(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def process(sources, predictor, min_score, batch_size, viewer=None, coco=None):
    """Detect objects in all sources; draw and list them.

    Reading and the model run in a thread each; drawing and writing run here. With a camera everything runs in turn, so
    that the frames shown are recent.

    Args:
        sources: list of `ImageFile`, `Video` and `Webcam`.
        predictor: `Predictor`.
        min_score: detections with a lower score are omitted.
        batch_size: largest number of frames that go through the model together.
        viewer: `FileWriter` or `Window` for the drawn frames, or None; it is closed at the end.
        coco: `CocoWriter`, or None.

    Returns `Statistics`; after Ctrl-C those of the frames done so far.
    """
    statistics, start = Statistics(), time.perf_counter()
    frames = read_frames(sources, predictor.prepare, statistics.failed)
    if any(source.is_live for source in sources):
        results = detect(frames, predictor, min_score, 1, statistics)
    else:
        results = detect(prefetch(frames, 2 * batch_size), predictor, min_score, batch_size, statistics)
        results = prefetch(results, batch_size)
    colors, last = class_colors(len(predictor.class_names)), None
    unit = " frames" if any(source.is_video for source in sources) else " images"
    try:
        with contextlib.closing(results), tqdm.tqdm(total=len(sources), unit=unit, disable=None) as bar:
            for frame, detections in results:
                if frame.source is not last:
                    last = frame.source
                    bar.total = bar.total + last.length - 1 if bar.total and last.length else None
                statistics.images += not frame.source.is_video
                statistics.frames += frame.source.is_video
                statistics.detections += len(detections)
                if coco:
                    coco.add(frame.name, frame.image.shape[:2], detections)
                if viewer and not viewer.write(frame, draw(frame, detections, colors)):
                    break
                bar.update()
    except KeyboardInterrupt:
        statistics.interrupted = True
    finally:
        if viewer:
            viewer.close()
    statistics.seconds = time.perf_counter() - start
    return statistics


def detect(frames, predictor, min_score, batch_size, statistics):
    """Yield (`Frame`, `ImageDetections`) for what `read_frames` yields; add the model's time to the statistics."""
    with contextlib.closing(frames):
        while batch := list(islice(frames, batch_size)):
            start = time.perf_counter()
            instances = predictor.detect([inputs for _, inputs in batch])
            statistics.model_seconds += time.perf_counter() - start
            for (frame, _), frame_instances in zip(batch, instances, strict=True):
                yield frame, predictor.to_detections(frame_instances, min_score)


def prefetch(items, size):
    """Yield the items of a generator; a thread computes up to `size` of them in advance.

    An exception of the generator is raised here, after the items before it. The generator is closed at the end.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        futures = deque(thread.submit(next, items, end) for _ in range(size))
        try:
            while (item := futures.popleft().result()) is not end:
                futures.append(thread.submit(next, items, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
            items.close()


def draw(frame, detections, colors):
    """The image with its detections, (H, W, 3) uint8 in BGR order. Small images are enlarged, videos are not."""
    labels = [f"{name} {score:.0%}" for name, score in zip(detections.names, detections.scores, strict=True)]
    image, long_side = cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB), 0 if frame.source.is_video else MIN_LONG_SIDE
    drawn = draw_boxes(image, detections.boxes, labels, [colors[c] for c in detections.classes], long_side)
    return cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
