"""`python tools/visualize_assignments.py` on generated images."""

import csv
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from atss.commands import assignments as tool
from atss.config import parse_with_opts
from atss.errors import InputError
from atss.modeling.assigners import ASSIGNER_REGISTRY, ATSSAssigner, ScaleRangeAssigner
from atss.study.positives import Geometry, positives_of
from tests.helpers import DEMO_CONFIG, TINY, error_line, pairs, run_forked

pytestmark = pytest.mark.slow

RULES = ["ATSSAssigner", "ScaleRangeAssigner"]


def arguments(shapes, *flags):
    return ["--config-file", DEMO_CONFIG, *pairs({**TINY, **shapes}), *map(str, flags)]


def main(shapes, *flags):
    tool.main(parse_with_opts(tool.get_parser(), arguments(shapes, *flags)))


def test_images_plot_table_and_bins(tiny_config, shapes, tmp_path):
    result = run_forked(
        "tools/visualize_assignments.py", *arguments(shapes, "--images", 2, "--output", tmp_path / "out")
    )

    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["0_000000.png", "1_000001.png", "positives.csv", "positives.png"]
    rules = [name.removesuffix("Assigner") for name, _ in ASSIGNER_REGISTRY]
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.split()[0] in rules}
    positives = positives_of(tiny_config(), ["tiny_val"])
    assert list(rows) == rules
    assert all(int(row[0]) == len(positives.counts) for row in rows.values())
    assert float(rows["ATSS"][1]) == pytest.approx(positives.counts.double().mean().item(), abs=0.05)


def test_bins_hold_every_object_and_every_positive(tiny_config, shapes, tmp_path):
    main(shapes, "--rules", *RULES, "--images", 0, "--output", tmp_path)

    with open(tmp_path / "positives.csv", encoding="utf-8") as file:
        bins = list(csv.DictReader(file))
    for name, rule in (("ATSS", ATSSAssigner()), ("ScaleRange", ScaleRangeAssigner())):
        counts = positives_of(tiny_config(), ["tiny_val"], rule).counts
        for axis in ("size", "aspect ratio"):
            of_axis = [bin for bin in bins if (bin["rule"], bin["axis"]) == (name, axis)]
            assert sum(int(bin["objects"]) for bin in of_axis) == len(counts)
            total = sum(int(bin["objects"]) * float(bin["mean"]) for bin in of_axis)
            assert total == pytest.approx(counts.sum().item(), abs=0.1)


def test_images_by_name_without_the_plot_keep_the_colours_of_the_objects(shapes, tmp_path):
    main(shapes, "--rules", "ATSSAssigner", "--file-name", "000000.jpg", "--no-plot", "--output", tmp_path)

    (path,) = tmp_path.iterdir()
    assert path.name == "0_000000.png"
    image = np.array(Image.open(path).convert("RGB")).astype(int)
    assert (abs(image - np.array(to_rgb(tool.COLORS[0])) * 255).max(-1) < 8).sum() > 50


@pytest.fixture
def geometry(tiny_config):
    return Geometry(tiny_config())


@pytest.fixture
def record(geometry):
    """The first image."""
    return DatasetCatalog.get("tiny_val")[0]


def drawn(geometry, record):
    """The figure with the positives of an image for ATSS."""
    return tool.draw_assignments(record, geometry, {"ATSS": geometry.assigner}, ["P3", "P4", "P5", "P6", "P7"])


def test_dots_are_the_centres_of_the_positives_in_the_colour_of_their_object(geometry, record):
    grid, boxes = geometry.grid(record), geometry.boxes(record)
    matches = geometry.assigner(grid, [boxes])[0]
    centers = (grid.boxes()[:, :2] + grid.boxes()[:, 2:]) / 2
    positives = zip(centers[matches >= 0].tolist(), matches[matches >= 0].tolist(), strict=True)
    expected = {(*center, tool.color_of(owner)) for center, owner in positives}

    figure = drawn(geometry, record)

    found = set()
    for axes in figure.axes:
        (dots,) = axes.collections
        of_dots = zip(dots.get_offsets().tolist(), dots.get_facecolors(), strict=True)
        found |= {(*offset, to_hex(color).upper()) for offset, color in of_dots}
    assert found == expected
    assert figure.axes[0].get_title() == f"ATSS\n{len(expected)} positives"


def test_rows_are_the_levels_with_positives(geometry, record):
    matches = geometry.assigner(geometry.grid(record), [geometry.boxes(record)])[0]
    by_level = matches.split(geometry.grid(record).level_sizes)
    used = [f"P{n + 3}, stride {8 << n}" for n, level in enumerate(by_level) if (level >= 0).any()]

    assert [axes.get_ylabel() for axes in drawn(geometry, record).axes] == used


def test_an_image_without_objects_is_drawn(geometry, record):
    figure = drawn(geometry, {**record, "annotations": []})

    assert [axes.get_title() for axes in figure.axes] == ["ATSS\n0 positives"]


@pytest.mark.parametrize(
    "flags, what",
    [
        (["--rules", "NearestAssigner"], "NearestAssigner.*ATSSAssigner"),
        (["--dataset", "nowhere_val"], "nowhere_val"),
        (["--file-name", "nowhere.jpg"], "nowhere.jpg"),
        (["--output", "README.md"], "README.md"),
        (["DATASETS.TEST", "()"], "--dataset"),
    ],
)
def test_bad_input_is_named(shapes, tmp_path, flags, what):
    with pytest.raises(InputError, match=what):
        main(shapes, "--output", tmp_path, *flags)


def test_an_unreadable_image_is_one_line_of_error(coco_file, tmp_path):
    annotations, images = coco_file()
    Path(images, "0.png").write_bytes(b"no image")
    names = {f"DATASETS.{use}": ("bad_image",) for use in ("TRAIN", "TEST")}
    command = arguments({"DATASETS.REGISTER": [["bad_image", annotations, images]], **names}, "--output", tmp_path)

    line = error_line(run_forked("tools/visualize_assignments.py", *command, check=False))

    assert "0.png" in line and "cannot be read" in line
