"""Where drawn images and detections go: files, a window, a list in COCO format."""

import contextlib
import json
import os
import re
import sys
import time

import cv2

from ..errors import InputError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# The codec of each type of video, for which OpenCV has an encoder.
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
WINDOW = "ATSS"
ESCAPE = 27


def output_paths(sources, output):
    """The path for each drawn source: `output` itself if that is a file name, else a path in the folder `output`.

    A type that cannot be written, and a path that is also an input, raise `InputError`.
    """
    suffix = os.path.splitext(output)[1].lower()
    if os.path.isdir(output) or not re.fullmatch(r"\.[a-z][a-z0-9]{1,4}", suffix):
        paths = paths_in(output, sources)
    else:
        paths = [output]
        check_file(output, suffix, sources)
    inputs = {os.path.realpath(source.path) for source in sources}
    for path in paths:
        if os.path.realpath(path) in inputs:
            raise InputError(f"--output {output}: {path} is an input, and would be overwritten")
    return paths


def check_file(output, suffix, sources):
    if suffix not in (*IMAGES, *CODECS):
        known = f"images are {' '.join(IMAGES)}, videos {' '.join(CODECS)}"
        raise InputError(f"--output {output}: cannot write {suffix}: {known}; the name of a folder may end with /")
    if len(sources) > 1:
        raise InputError(f"--output {output}: {len(sources)} inputs need a folder, not a file")
    if sources[0].is_video != (suffix in CODECS):
        what, types = ("a video", CODECS) if sources[0].is_video else ("an image", IMAGES)
        raise InputError(f"--output {output}: the input is {what}, so name one ({' '.join(types)}), or a folder")


def paths_in(folder, sources):
    """A different path in the folder for each source."""
    names = {}  # a dict keeps the order, which a set does not
    for source in sources:
        stem, suffix = os.path.splitext(os.path.basename(source.path))
        video_suffix = suffix.lower() if suffix.lower() in CODECS else ".mp4"
        suffix = video_suffix if source.is_video else ".png"
        name, number = stem + suffix, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}{suffix}"
        names[name] = source
    return [os.path.join(folder, name) for name in names]


def make_folder(path):
    """Make a folder, "" for the working directory; one that cannot be made raises `InputError`."""
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: this folder cannot be made ({error.strerror})") from error


class FileWriter:
    """Writes drawn images to files, and the frames of each video to one file; `paths` has a path for each source."""

    def __init__(self, sources, paths):
        make_folder(os.path.dirname(paths[0]))
        self.paths = dict(zip(sources, paths, strict=True))
        self.video = None

    def write(self, frame, drawn):
        """Write a `Frame` as drawn, (H, W, 3) uint8 in BGR order, and return True; raises `InputError` if it fails."""
        path = self.paths[frame.source]
        if not frame.source.is_video:
            write_image(path, drawn)
            return True
        if self.video is None or self.video.path != path:
            self.close()
            self.video = VideoWriter(path, frame.source.fps, drawn.shape[:2], frame.source.is_live)
        self.video.write(drawn)
        return True

    def close(self):
        """Complete the current video."""
        if self.video is not None:
            video, self.video = self.video, None
            video.close()


def write_image(path, image):
    written = False
    with contextlib.suppress(cv2.error):
        written = cv2.imwrite(path, image)
    if not written:
        raise InputError(f"{path}: the image cannot be written")


class VideoWriter:
    """Writes a video file; raises `InputError` if OpenCV cannot write such a video.

    Args:
        path: its extension is one of `CODECS`.
        fps: frames per second.
        size: (height, width) of the frames; codecs drop an odd last row or column.
        is_live: frames arrive in real time, at any rate; they are repeated or dropped to keep time.
    """

    def __init__(self, path, fps, size, is_live=False):
        self.path, self.fps, self.size, self.is_live = path, fps, size, is_live
        codec = CODECS[os.path.splitext(path)[1].lower()]
        height, width = size
        self.writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        if not self.writer.isOpened():
            raise InputError(
                f"{path}: a video of {width} x {height} pixels and {fps:g} frames per second cannot be written here "
                f"with codec {codec}; try another type: {' '.join(CODECS)}"
            )
        self.start, self.written = time.perf_counter(), 0

    def write(self, image):
        """Write a frame (H, W, 3), uint8 in BGR order; one of another size than the first raises `InputError`."""
        if image.shape[:2] != self.size:
            raise InputError(
                f"{self.path}: the video changes its size from {self.size[1]} x {self.size[0]} pixels to "
                f"{image.shape[1]} x {image.shape[0]} after {self.written} frames"
            )
        due = 1 + int((time.perf_counter() - self.start) * self.fps) if self.is_live else self.written + 1
        for _ in range(self.written, due):
            self.writer.write(image)
        self.written = max(self.written, due)

    def close(self):
        """Complete the file. A file that lacks frames raises `InputError`; OpenCV does not report a full disk."""
        self.writer.release()
        capture = cv2.VideoCapture(self.path)
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self.written - 1)
        has_end, _ = capture.read()
        capture.release()
        if not has_end or length < 0.9 * self.written:  # some containers only have an estimate
            raise InputError(f"{self.path}: the video could not be written; is the disk full?")


def check_screen():
    """Raise `InputError` if there is no screen for a window."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise InputError("there is no screen to open a window on: name a file or folder with --output, or --json")


class Window:
    """Shows drawn frames: images until a key is pressed, videos at their frame rate."""

    def __init__(self):
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        self.shown = time.perf_counter()

    def write(self, frame, drawn):
        """Show a `Frame` as drawn, (H, W, 3) uint8 in BGR order; returns False if the user wants to stop."""
        cv2.imshow(WINDOW, drawn)
        if frame.source.is_video:
            rest = 0 if frame.source.is_live else 1 / frame.source.fps - (time.perf_counter() - self.shown)
            key = cv2.waitKey(max(1, round(1000 * rest)))
            self.shown = time.perf_counter()
            return key != ESCAPE and is_open()
        while is_open():
            key = cv2.waitKey(100)
            if key >= 0:
                return key != ESCAPE
        return False

    def close(self):
        cv2.destroyAllWindows()


def is_open():
    return cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1


class CocoWriter:
    """Writes detections in COCO format as they arrive, under another name until the file is complete.

    Args:
        path: path of the json file; one that cannot be written raises `InputError`.
        class_names: names of all classes; the first gets the category id 1.
    """

    def __init__(self, path, class_names):
        self.path, self.draft = path, f"{path}.{os.getpid()}.part"
        if os.path.isdir(path):
            raise InputError(f"--json {path}: this is a folder; name a file")
        make_folder(os.path.dirname(path))
        try:
            self.file = open(self.draft, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"--json {path}: cannot be written ({error.strerror})") from error
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
        self.file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        self.images, self.num_annotations = [], 0

    def add(self, name, size, detections):
        """Add an image's name, its size as (height, width), and its detections (`ImageDetections`)."""
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": size[1], "height": size[0]})
        boxes, scores, classes = detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, classes, strict=True):
            self.file.write(",\n" if self.num_annotations else "\n")
            self.num_annotations += 1
            annotation = {
                "id": self.num_annotations, "image_id": len(self.images), "category_id": label + 1,
                "bbox": [round(x, 3) for x in (x1, y1, x2 - x1, y2 - y1)], "area": round((x2 - x1) * (y2 - y1), 3),
                "iscrowd": 0, "score": round(score, 6),
            }  # fmt: skip
            self.file.write(json.dumps(annotation))

    def finish(self):
        """Complete the file and give it its name."""
        images = ",\n".join(json.dumps(image) for image in self.images)
        self.file.write(f'],\n"images": [\n{images}]}}\n')
        self.file.close()
        os.replace(self.draft, self.path)

    def close(self):
        """Remove the file if it was not finished."""
        self.file.close()
        if os.path.exists(self.draft):
            os.remove(self.draft)
