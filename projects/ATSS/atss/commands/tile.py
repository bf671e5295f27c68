"""Cut a dataset's images into overlapping tiles, with their boxes, to train on small objects in large images.

    atss tile aerial/ --size 640 --overlap 0.2 --output aerial_tiles/

The dataset is in one of the layouts of DATASETS.FOLDER (docs/own_data.md). All of its splits are cut, and written in
COCO's format: aerial_tiles/annotations/train.json, with its tiles in aerial_tiles/train/, and so on.
"""

import argparse
import os
import tempfile

from detectron2.data import MetadataCatalog
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from ..data import read_dataset, register_folder
from ..data.cutting import Cutter, write_coco
from ..data.image_io import MAX_PIXELS
from ..errors import InputError, one_line_errors


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", help="folder of the dataset")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the tiles, which must not exist yet")
    parser.add_argument(
        "--size", type=int, default=640, metavar="PIXELS", help="height and width of a tile; default 640"
    )
    overlap = "share of a tile that it has in common with the next one; default 0.2"
    parser.add_argument("--overlap", type=float, default=0.2, metavar="SHARE", help=overlap)
    visible = (
        "an object of which less than this share is inside of a tile becomes a crowd region there, which training "
        "ignores; default 0.5"
    )
    parser.add_argument("--min-visible", type=float, default=0.5, metavar="SHARE", help=visible)
    parser.add_argument("--drop-empty", action="store_true", help="leave out tiles without objects")
    quality = "of tiles of JPEG files, from 1 to 100; default 95. Tiles of all other files are PNG files"
    parser.add_argument("--quality", type=int, default=95, help=quality)
    most = f"refuse larger images; default {MAX_PIXELS}, as INPUT.MAX_PIXELS"
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, metavar="PIXELS", help=most)
    return parser


def main(args):
    setup_logger(name="atss")
    check(args)
    cutter = Cutter(args.size, args.overlap, args.min_visible, not args.drop_empty, args.quality, args.max_pixels)
    parent, rows = os.path.dirname(os.path.abspath(args.output)), []
    try:
        os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tiles", dir=parent) as draft:
            draft = os.path.join(draft, "dataset")
            os.makedirs(os.path.join(draft, "annotations"))
            for split, name in register_folder(args.folder).items():
                counts = cut_split(cutter, name, draft, split)
                rows.append([split, counts.images, counts.tiles, counts.empty, counts.objects, counts.regions])
            os.rename(draft, args.output)  # an empty folder is replaced
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"--output {args.output}: cannot write there ({error.strerror})") from error
    print(tabulate(rows, ["split", "images", "tiles", "without objects", "objects", "crowd regions"]))
    print(f"Written: {args.output}")


def check(args):
    """Raise an `InputError` that names the first argument that cannot be used."""
    limits = [
        ("--size", args.size >= 1, "at least 1 pixel"),
        ("--overlap", 0 <= args.overlap < 1, "0 or more and less than 1"),
        ("--min-visible", 0 < args.min_visible <= 1, "more than 0 and at most 1"),
        ("--quality", 1 <= args.quality <= 100, "1 to 100"),
        ("--max-pixels", args.max_pixels >= 1, "at least 1 pixel"),
    ]
    for name, is_valid, expected in limits:
        if not is_valid:
            raise InputError(f"{name}: expected {expected}, got {vars(args)[name[2:].replace('-', '_')]}")
    if os.path.exists(args.output) and (not os.path.isdir(args.output) or os.listdir(args.output)):
        raise InputError(f"--output {args.output}: is there already; name a new folder")


def cut_split(cutter, name, folder, split):
    """Write the tiles of a registered dataset, and their annotation file, into a folder; return its `Counts`."""
    dicts, metadata = read_dataset(name), MetadataCatalog.get(name)
    category_ids = list(metadata.thing_dataset_id_to_contiguous_id)
    categories = dict(zip(category_ids, metadata.thing_classes, strict=True))
    tiles = os.path.join(folder, split)
    os.makedirs(tiles, exist_ok=True)  # a split may be called "annotations"
    return write_coco(
        os.path.join(folder, "annotations", f"{split}.json"), categories, cutter.cut(dicts, category_ids, tiles)
    )


def run(arguments=None):
    with one_line_errors():
        main(get_parser().parse_args(arguments))
