"""The benchmark runs, and compares evaluations of the same detections."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import evaluation
from tests.helpers import run_forked


@pytest.mark.slow
def test_output():
    result = run_forked("benchmarks/evaluation.py", "--images", 20)

    line = r"^ +{} +(list|file) +[\d.]+ +[\d.]+((?: +[\d.]+){{6}})$"
    ours, theirs = (re.findall(line.format(name), result.stdout, re.M) for name in ("this project", "pycocotools"))
    assert "20 images, 80 classes" in result.stdout and "2000 detections of 15 classes per image" in result.stdout
    assert [source for source, _ in ours] == ["list", "file"]
    assert ours == theirs and 20 < float(ours[0][1].split()[0]) < 80
    for source in ("list", "file"):
        assert re.search(
            rf"^this project, from a {source}: [\d.]+x as fast as pycocotools, precisions differ by at most 0.0e\+00$",
            result.stdout,
            re.M,
        )


def test_generated_images_are_like_coco_val():
    args = SimpleNamespace(images=60, detections=100, spread=15, seed=0)
    coco, results = evaluation.generate(args)
    again = evaluation.generate(args)

    assert results == again[1] and coco.dataset == again[0].dataset
    assert len(results) == 6000 and 6 < len(coco.anns) / 60 < 8
    assert any(a["iscrowd"] for a in coco.anns.values()) and len({a["category_id"] for a in coco.anns.values()}) > 40
    per_image = [len({r["category_id"] for r in results if r["image_id"] == i}) for i in coco.imgs]
    assert 10 < np.mean(per_image) <= 15


@pytest.mark.slow
def test_an_invalid_setting_is_refused():
    result = run_forked("benchmarks/evaluation.py", "--spread", 100, check=False)

    assert result.returncode == 2 and "argument --spread: invalid choice: 100" in result.stderr
