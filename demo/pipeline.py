"""Reading, detecting, drawing and writing, at the same time."""

import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import cv2
import tqdm

from atss.utils.drawing import MIN_LONG_SIDE, class_colors, draw_boxes
from sources import read


@dataclass
class Tally:
    """What was done: numbers, times in seconds, whether Ctrl-C ended it, and the sources that could not be read."""

    images: int = 0
    frames: int = 0
    objects: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    interrupted: bool = False
    failed: list = field(default_factory=list)

    def add(self, frame, found):
        """Count a `Frame` and its `Found`."""
        self.images += not frame.source.is_video
        self.frames += frame.source.is_video
        self.objects += len(found)

    def summary(self):
        """A line of text."""
        number = self.images + self.frames
        kinds = [count(n, kind) for n, kind in ((self.images, "image"), (self.frames, "frame")) if n]
        line = f"{' and '.join(kinds) or 'nothing'} in {self.seconds:.1f} s, {count(self.objects, 'object')}"
        if not number:
            return line
        return f"{line}; {number / self.seconds:.1f} a second in all, {number / self.model_seconds:.1f} the model alone"


def count(number, kind):
    return f"{number} {kind}" if number == 1 else f"{number} {kind}s"


def look(sources, predictor, min_score, batch_size, viewer=None, coco=None):
    """Find the objects of all sources, and draw and list them.

    Reading and the model have a thread each, beside drawing and writing here. With a camera all take turns, so that
    what is seen is new.

    Args:
        sources: list of `ImageFile`, `Video` and `Webcam`.
        predictor: `Predictor`.
        min_score: least score of an object.
        batch_size: frames that the model sees together, at most.
        viewer: `Files` or `Window` for what is drawn, or None; it is closed.
        coco: `CocoFile`, or None.

    Returns:
        `Tally`; after Ctrl-C, too, of what was done before.
    """
    tally, start = Tally(), time.perf_counter()
    found = read(sources, predictor.prepare, tally.failed)
    if any(source.is_live for source in sources):
        found = detect(found, predictor, min_score, 1, tally)
    else:
        found = detect(ahead(found, 2 * batch_size), predictor, min_score, batch_size, tally)
        found = ahead(found, batch_size)
    colors, last = class_colors(len(predictor.class_names)), None
    unit = " frames" if any(source.is_video for source in sources) else " images"
    try:
        with contextlib.closing(found), tqdm.tqdm(total=len(sources), unit=unit, disable=None) as bar:
            for frame, objects in found:
                if frame.source is not last:
                    last = frame.source
                    bar.total = bar.total + last.length - 1 if bar.total and last.length else None
                tally.add(frame, objects)
                if coco:
                    coco.add(frame.name, frame.image.shape[:2], objects)
                if viewer and not viewer.write(frame, draw(frame, objects, colors)):
                    break
                bar.update()
    except KeyboardInterrupt:
        tally.interrupted = True
    finally:
        if viewer:
            viewer.close()
    tally.seconds = time.perf_counter() - start
    return tally


def detect(frames, predictor, min_score, batch_size, tally):
    """Yield (`Frame`, `Found`) of what `read` yields, and add the time of the model to the tally."""
    with contextlib.closing(frames):
        while batch := list(islice(frames, batch_size)):
            start = time.perf_counter()
            instances = predictor.detect([x for _, x in batch])
            tally.model_seconds += time.perf_counter() - start
            for (frame, _), of_frame in zip(batch, instances, strict=True):
                yield frame, predictor.found(of_frame, min_score)


def ahead(items, size):
    """Yield what the generator `items` yields, up to `size` of it worked out before it is needed, by a thread.

    Whatever the generator raises is raised here, when its turn comes. It is closed at the end, also at an early one.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(size))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
            items.close()


def draw(frame, found, colors):
    """A frame's image with the `Found` of it drawn in, (H, W, 3) uint8 in BGR order; small images are enlarged.

    Frames of a video keep their size.
    """
    labels = [f"{name} {score:.0%}" for name, score in zip(found.names, found.scores, strict=True)]
    drawn = draw_boxes(
        cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB),
        found.boxes,
        labels,
        [colors[c] for c in found.classes],
        min_long_side=0 if frame.source.is_video else MIN_LONG_SIDE,
    )
    return cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
