"""Time of the augmentations that leave an image its size, beside torchvision.transforms.v2 on the same image.

python benchmarks/effects.py --size 480 640
"""

import argparse
import statistics
import time

import cv2
import numpy as np
import torch
from tabulate import tabulate
from torchvision.transforms import v2

from atss.data.augmentations.effects import Blur, ColorJitter, Jpeg, Noise, Rotate


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    image = np.random.default_rng(0).integers(0, 256, (*args.size, 3), np.uint8)
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    bilinear = v2.InterpolationMode.BILINEAR
    pairs = {
        "brightness, contrast, saturation": (ColorJitter(hue=0), v2.ColorJitter(0.3, 0.3, 0.3)),
        "the same and hue": (ColorJitter(), v2.ColorJitter(0.3, 0.3, 0.3, 0.02)),
        "blur": (Blur((1.5, 1.5), 1), v2.GaussianBlur(9, 1.5)),
        "noise": (Noise((0.03, 0.03), 1), v2.GaussianNoise(sigma=0.03)),
        "jpeg": (Jpeg((60, 60), 1), v2.JPEG(60)),
        "rotation": (Rotate(5, 1), v2.RandomRotation(5, bilinear)),
    }
    rows = []
    for name, (ours, theirs) in pairs.items():
        calls = [lambda: ours.get_transform(image.shape).apply_image(image), lambda: theirs(tensor)]  # noqa: B023
        times = [[], []]
        for _ in range(args.rounds + 1):
            for call, measured in zip(calls, times, strict=True):
                start = time.process_time()
                call()
                measured.append(1000 * (time.process_time() - start))
        a, b = (statistics.median(measured[1:]) for measured in times)
        rows.append([name, f"{a:.2f}", f"{b:.2f}", f"{b / a:.1f}"])
    print(tabulate(rows, ["", "this project, ms", "torchvision, ms", "ratio"], disable_numparse=True))


if __name__ == "__main__":
    main()
