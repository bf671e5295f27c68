"""What becomes of the images in which objects were found: files, a window, a list in COCO's format."""

import json
import os
import re
import sys
import time

import cv2

from atss.errors import InputError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Codecs of the videos that can be written; OpenCV brings an encoder for each.
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
WINDOW = "ATSS"
ESCAPE = 27


def output_paths(sources, output):
    """Where each drawn source goes: to `output` itself if that is a file's name, else into it, as a folder.

    Raises:
        InputError: a type that cannot be written, or that does not fit, or a file that would be read, too.
    """
    suffix = os.path.splitext(output)[1].lower()
    if os.path.isdir(output) or not re.fullmatch(r"\.[a-z][a-z0-9]{1,4}", suffix):
        paths = paths_in(output, sources)
    else:
        check_file(output, suffix, sources)
        paths = [output]
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
        what, types = ("video", CODECS) if sources[0].is_video else ("image", IMAGES)
        raise InputError(f"--output {output}: the input is a {what}, so name one ({' '.join(types)}), or a folder")


def paths_in(folder, sources):
    """A path in the folder for each source, no two the same."""
    paths, used = [], set()
    for source in sources:
        stem, suffix = os.path.splitext(os.path.basename(source.path))
        suffix = suffix.lower() if suffix.lower() in CODECS else ".mp4"
        suffix = suffix if source.is_video else ".png"
        name, number = stem + suffix, 1
        while name in used:
            number += 1
            name = f"{stem}_{number}{suffix}"
        used.add(name)
        paths.append(os.path.join(folder, name))
    return paths


def make_folder(path):
    """Make a folder, "" for where we are."""
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: this folder cannot be made ({error.strerror})") from error


class Files:
    """Writes drawn frames, those of a video into one file.

    Args:
        paths: dict from source to path.
    """

    def __init__(self, paths):
        self.paths = paths
        self.video = None

    def write(self, frame, drawn):
        """Write a frame's drawn image, (H, W, 3) uint8 in BGR order.

        Returns:
            True: there is room for more.

        Raises:
            InputError: it cannot be written.
        """
        path = self.paths[frame.source]
        if not frame.source.is_video:
            write_image(path, drawn)
            return True
        if self.video is None or self.video.path != path:
            self.close()
            self.video = VideoFile(path, frame.source.fps, drawn.shape[:2], frame.source.is_live)
        self.video.write(drawn)
        return True

    def close(self):
        """Complete the video under way."""
        video, self.video = self.video, None
        if video is not None:
            video.close()


def write_image(path, image):
    """Write an image (H, W, 3), uint8 in BGR order."""
    try:
        written = cv2.imwrite(path, image)
    except cv2.error:
        written = False
    if not written:
        raise InputError(f"{path}: the image cannot be written")


class VideoFile:
    """A video file under way.

    Args:
        path: its extension is one of `CODECS`.
        fps: frames a second.
        size: (height, width) of the frames; an odd last row or column is left out, as codecs want it.
        is_live: frames come in real time, at any rate: they are repeated, or left out, so that the video runs like it.

    Raises:
        InputError: OpenCV cannot write such a video.
    """

    def __init__(self, path, fps, size, is_live=False):
        self.path, self.fps, self.size, self.is_live = path, fps, size, is_live
        codec = CODECS[os.path.splitext(path)[1].lower()]
        height, width = size
        self.writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*codec), fps, (width, height))
        if not self.writer.isOpened():
            raise InputError(
                f"{path}: a video of {width} x {height} pixels and {fps:g} frames a second cannot be written here with "
                f"codec {codec}; try another type: {' '.join(CODECS)}"
            )
        self.started, self.written = time.perf_counter(), 0

    def write(self, image):
        """Write a frame (H, W, 3), uint8 in BGR order.

        Raises:
            InputError: it has another size than the first.
        """
        if image.shape[:2] != self.size:
            raise InputError(
                f"{self.path}: the video changes its size from {self.size[1]} x {self.size[0]} pixels to "
                f"{image.shape[1]} x {image.shape[0]} after {self.written} frames"
            )
        due = self.written + 1
        if self.is_live:
            due = 1 + int((time.perf_counter() - self.started) * self.fps)
        for _ in range(self.written, due):
            self.writer.write(image)
        self.written = max(self.written, due)

    def close(self):
        """Complete the file.

        Raises:
            InputError: it does not hold what was written; on a full disk OpenCV says nothing.
        """
        self.writer.release()
        capture = cv2.VideoCapture(self.path)
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.set(cv2.CAP_PROP_POS_FRAMES, self.written - 1)
        has_end, _ = capture.read()
        capture.release()
        if not has_end or length < 0.9 * self.written:  # an estimate in some containers
            raise InputError(f"{self.path}: the video could not be written; is the disk full?")


def check_screen():
    """See that there is a screen for a window.

    Raises:
        InputError: there is none.
    """
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise InputError("there is no screen to open a window on: name a file or folder with --output, or --json")


class Window:
    """Shows drawn frames, images until a key is pressed, videos at their rate."""

    def __init__(self):
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        self.shown = time.perf_counter()

    def write(self, frame, drawn):
        """Show a frame's drawn image, (H, W, 3) uint8 in BGR order.

        Returns:
            False if Escape or closing the window ended it.
        """
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


class CocoFile:
    """Objects in COCO's format, written as they come into a file beside it, which takes its name in the end.

    Args:
        path: of the json file.
        class_names: names of all classes; the first has the category id 1.

    Raises:
        InputError: it cannot be written.
    """

    def __init__(self, path, class_names):
        self.path, self.part = path, f"{path}.{os.getpid()}.part"
        if os.path.isdir(path):
            raise InputError(f"--json {path}: this is a folder; name a file")
        make_folder(os.path.dirname(path))
        try:
            self.file = open(self.part, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"--json {path}: cannot be written ({error.strerror})") from error
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(class_names)]
        self.file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        self.images, self.num_objects = [], 0

    def add(self, name, size, found):
        """Add an image of this name and size, (height, width), and the `Found` of it."""
        self.images.append((name, *size))
        for (x1, y1, x2, y2), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        ):
            width, height = x2 - x1, y2 - y1
            box, area = [round(side, 3) for side in (x1, y1, width, height)], round(width * height, 3)
            self.file.write(",\n" if self.num_objects else "\n")
            self.num_objects += 1
            annotation = {
                "id": self.num_objects, "image_id": len(self.images), "category_id": label + 1, "bbox": box,
                "area": area, "iscrowd": 0, "score": round(score, 6),
            }  # fmt: skip
            self.file.write(json.dumps(annotation))

    def finish(self):
        """Complete the file and give it its name."""
        self.file.write('],\n"images": [')
        for number, (name, height, width) in enumerate(self.images):
            self.file.write(",\n" if number else "\n")
            image = {"id": number + 1, "file_name": name, "width": width, "height": height}
            self.file.write(json.dumps(image))
        self.file.write("]}\n")
        self.file.close()
        os.replace(self.part, self.path)

    def close(self):
        """Leave nothing of a file that was not finished."""
        self.file.close()
        if os.path.exists(self.part):
            os.remove(self.part)
