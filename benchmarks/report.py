"""Measure the report of a run as long as the paper's, with as many images and classes as COCO val.

    python benchmarks/report.py                     # 5,000 images, 100 detections each, 80 classes

The run is synthetic. Measured are the time of the whole command, the size of the page, and the time until headless
Chromium has loaded it, the median of several starts.
"""

import argparse
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

import evaluation
from atss.config import load_config

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ITERATIONS, LOGGED = 90_000, 20


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(args.keep or folder)
        numbers = make_run(run, args)
        print("{} images, {} classes, {} objects, {} detections".format(*numbers))
        begin = time.perf_counter()
        subprocess.run([sys.executable, ROOT / "tools/report.py", run], check=True, stdout=subprocess.DEVNULL)
        print(f"seconds to make the report: {time.perf_counter() - begin:.1f}")
        print(f"megabytes of the page: {(run / 'report.html').stat().st_size / 1e6:.2f}")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if not browser:
            print(f"milliseconds to load it: not measured, there is no {' or '.join(BROWSERS)}")
            return
        times = [load_time(browser, run / "report.html") for _ in range(args.loads)]
        print(f"milliseconds to load it: {statistics.median(times):.0f} (from {min(times):.0f} to {max(times):.0f})")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="per image")
    parser.add_argument("--spread", type=int, default=15, choices=range(3, evaluation.CLASSES + 1), metavar="3..80",
                        help="classes among the detections of an image")  # fmt: skip
    parser.add_argument("--loads", type=int, default=5, help="starts of the browser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", metavar="DIR", help="write the run here, and keep it")
    return parser.parse_args()


def make_run(folder, args):
    """Write a run and its dataset into a folder; return the numbers of images, classes, objects and detections."""
    coco, results = evaluation.generate(args)
    content = coco.dataset
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "inference").mkdir(exist_ok=True)
    random = np.random.default_rng(args.seed)
    for image in content["images"]:
        image["file_name"] = f"{image['id']:012}.jpg"
        drawn = draw(random, [coco.anns[i] for i in coco.getAnnIds(image["id"])])
        cv2.imwrite(str(folder / "images" / image["file_name"]), drawn)
    (folder / "annotations.json").write_text(json.dumps(content))
    (folder / "inference/coco_instances_results.json").write_text(json.dumps(results))
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in training(random)))
    dataset = ["drawn_val", str(folder / "annotations.json"), str(folder / "images")]
    settings = {"REGISTER": [dataset], "TRAIN": ("drawn_val",), "TEST": ("drawn_val",)}
    opts = [text for key, value in settings.items() for text in (f"DATASETS.{key}", str(value))]
    cfg = load_config(str(ROOT / "configs/atss_R_50_FPN_1x.yaml"), opts)
    (folder / "config.yaml").write_text(cfg.dump())
    return len(content["images"]), len(content["categories"]), len(content["annotations"]), len(results)


def draw(random, objects):
    """Draw an image, (H, W, 3) uint8: noise, and a filled rectangle per object in the colour of its class."""
    blotches = random.integers(90, 170, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(blotches, (evaluation.WIDTH, evaluation.HEIGHT), interpolation=cv2.INTER_CUBIC)
    for entry in objects:
        x, y, width, height = np.round(entry["bbox"]).astype(int).tolist()
        color = np.random.default_rng(entry["category_id"]).integers(0, 255, 3).tolist()
        cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), color, -1)
    return image


def training(random):
    """Yield lines of metrics.json: decreasing losses, and an evaluation every 5,000 iterations."""
    for iteration in range(LOGGED - 1, ITERATIONS, LOGGED):
        fall = math.exp(-4 * iteration / ITERATIONS)
        noise = random.normal(1, 0.05, 3)
        parts = {"loss_cls": 0.2 + 0.8 * fall, "loss_box": 0.3 + 0.5 * fall, "loss_centerness": 0.6 + 0.06 * fall}
        parts = {name: float(value * factor) for (name, value), factor in zip(parts.items(), noise, strict=True)}
        rate = 0.01 * 0.1 ** sum(iteration > 1000 * step for step in (60, 80)) * min(1, iteration / 1000)
        line = {"iteration": iteration, "total_loss": sum(parts.values()), **parts, "lr": rate, "time": 0.4}
        if (iteration + 1) % 5000 == 0:
            ap = 39 * (1 - fall)
            line |= {"bbox/AP": ap, "bbox/AP50": 1.5 * ap, "bbox/AP75": 1.07 * ap}
            line |= {f"validation/{name}": 1.05 * value for name, value in parts.items()}
            line["validation/total_loss"] = 1.05 * line["total_loss"]
        yield line


def load_time(browser, page):
    """Return the milliseconds from the start of the navigation to the end of the load event in a headless browser.

    A script in a copy of the page measures them; the copy lacks the page's rule against scripts.
    """
    text = page.read_text(encoding="utf-8")
    script = (
        "<script>addEventListener('load', () => setTimeout(() => document.documentElement.setAttribute('data-load', "
        "performance.getEntriesByType('navigation')[0].loadEventEnd)))</script>"
    )
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text, count=1).replace("</head>", script + "</head>", 1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "page.html")
        copy.write_text(text, encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder}/profile", "--window-size=1280,1000", "--timeout=10000", "--dump-dom",
            copy.as_uri(),
        ]  # fmt: skip
        dom = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return float(re.search(r'data-load="([\d.]+)"', dom)[1])


if __name__ == "__main__":
    main()
