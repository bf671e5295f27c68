"""The command that cuts a dataset into tiles, for all formats, and what it refuses."""

import json
import os
from functools import partial

import pytest

from atss.commands.tile import get_parser, main
from atss.data.folders import find_dataset
from atss.errors import InputError
from tests.own_data import write_coco, write_voc, write_yolo


def tile(folder, output, *arguments):
    main(get_parser().parse_args([str(folder), "--output", str(output), *map(str, arguments)]))


with_names = partial(write_yolo, yaml="train: images/train\nval: images/val\nnames: [cat, dog]")


@pytest.mark.parametrize("write", [write_coco, with_names, write_voc])
def test_every_split_of_a_dataset_of_any_format_is_cut(tmp_path, write, capsys):
    write(tmp_path / "cells")

    tile(tmp_path / "cells", tmp_path / "tiles", "--size", 32, "--overlap", 0.25)

    assert list(find_dataset(str(tmp_path / "tiles")).splits) == ["train", "val"]
    content = json.loads((tmp_path / "tiles/annotations/train.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["cat", "dog"]
    assert len(content["images"]) == 3 * 2 + 2 * 3 == len(os.listdir(tmp_path / "tiles/train"))
    boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == 1 and not a["iscrowd"]]
    assert sorted(boxes) == [[0, 0, 10, 12], [5, 6, 20, 26]], "the dog is 30 pixels high, and the tile has 26 of them"
    assert "Written: " in capsys.readouterr().out


def test_a_split_may_be_called_annotations(tmp_path):
    """After its file, where another one names a split."""
    write_coco(tmp_path / "cells")
    (tmp_path / "cells/annotations/val.json").rename(tmp_path / "cells/annotations/annotations.json")

    tile(tmp_path / "cells", tmp_path / "tiles", "--size", 32)

    splits = find_dataset(str(tmp_path / "tiles")).splits
    assert list(splits) == ["train", "annotations"]
    for name, source in splits.items():
        content = source.read()
        assert content.image_folder == str(tmp_path / "tiles" / name) and not content.problems
        assert {i["file_name"] for i in content.coco["images"]} <= set(os.listdir(content.image_folder))


def test_the_same_dataset_gives_the_same_files(tmp_path):
    write_coco(tmp_path / "cells")
    for output in ("a", "b"):
        tile(tmp_path / "cells", tmp_path / output, "--size", 32)

    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--size", 0], "--size: expected at least 1 pixel, got 0"),
        (["--overlap", 1], "--overlap: expected 0 or more and less than 1, got 1.0"),
        (["--overlap", "nan"], "--overlap: expected 0 or more and less than 1, got nan"),
        (["--min-visible", 0], "--min-visible: expected more than 0 and at most 1, got 0.0"),
        (["--quality", 101], "--quality: expected 1 to 100, got 101"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, arguments, expected):
    with pytest.raises(InputError, match=expected):
        tile(tmp_path, tmp_path / "tiles", *arguments)


def test_what_is_there_is_not_overwritten_and_a_failure_leaves_nothing(tmp_path):
    write_coco(tmp_path / "cells")
    with pytest.raises(InputError, match=r"--output .*cells: is there already; name a new folder"):
        tile(tmp_path / "cells", tmp_path / "cells")
    with pytest.raises(InputError, match=r"--output .*a\.png/tiles: cannot write there"):
        tile(tmp_path / "cells", tmp_path / "cells/train/a.png/tiles")

    (tmp_path / "cells/val/d.png").write_text("no image")
    with pytest.raises(InputError, match=r"d\.png: the image cannot be read"):
        tile(tmp_path / "cells", tmp_path / "tiles")

    assert [path.name for path in tmp_path.iterdir()] == ["cells"]
