"""Make a checkpoint of another codebase one of this project, with a config under which it gives the same boxes.

    atss convert ATSS_R_50_FPN_1x.pth --output converted/
    atss eval --config-file converted/config.yaml

It reads models of the paper's repository, of DynamicHead, of OpenVINO Training Extensions (1.x and 2.x) and of
mmdetection (2.x and 3.x: ATSS, also with a dynamic head, and GFL); to train from, backbone and pyramid of Detectron2's
RetinaNet and FCOS, and the ResNets of torchvision, timm and MSRA (ImageNet). It never runs code that a file may hold.
The architecture is read off the weights. `keys.txt` lists every key that it mapped, left or filled in.
"""

import argparse
import os
import tempfile
from pathlib import Path

import torch

from ..checkpoints.conversion import convert
from ..checkpoints.files import reason
from ..checkpoints.formats import MMDETECTION
from ..config import load_config, parse_with_opts, shipped
from ..errors import InputError, one_line_errors


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", metavar="FILE", help="of the other codebase")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for model.pth, config.yaml and keys.txt")
    parser.add_argument("--allow-pickle", action="store_true", help="read a .pkl file, of which only numbers are taken")
    parser.add_argument("--config-file", metavar="FILE", help="start from this config; the weights must fit it")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys and values")
    return parser


def main(args):
    base = args.config_file or str(shipped.FOLDER / "Base-ATSS.yaml")
    cfg = load_config(base, ["MODEL.DEVICE", "cpu", *args.opts], read_datasets=False)
    given = args.opts[::2]
    own_datasets = bool(args.config_file) or any(key.startswith("DATASETS.") for key in given)
    allow_pickle = args.allow_pickle or cfg.MODEL.ATSS.ALLOW_PICKLE
    conversion = convert(args.checkpoint, cfg, bool(args.config_file), own_datasets, given, allow_pickle)
    write(conversion, args.checkpoint, args.output)
    print(
        f"{args.checkpoint}: of {conversion.format.title}; {len(conversion.mapped)} keys mapped, "
        f"{len(conversion.left)} left, {len(conversion.filled)} filled in (keys.txt lists them)"
    )
    if not conversion.format.whole:
        print("These are weights to train from (MODEL.WEIGHTS): the head, and what else they lack, starts anew")
    if not conversion.format.whole and conversion.cfg.MODEL.RESNETS.NUM_GROUPS > 1:
        print(
            f"MODEL.PIXEL_STD is {conversion.cfg.MODEL.PIXEL_STD}; ResNeXts differ in it: add it to the command if the "
            "file's source says otherwise"
        )
    if conversion.format is MMDETECTION and conversion.cfg.MODEL.RESNETS.NUM_GROUPS > 1:
        print(
            "A ResNeXt that OpenVINO Training Extensions has published to train from looks the same: if it is one, add "
            "MODEL.ATSS.RELU_BEFORE_P7 True MODEL.PIXEL_MEAN [0,0,0] MODEL.PIXEL_STD [255,255,255] to the command"
        )
    print(f"Written: {args.output}: config.yaml, model.pth")


def write(conversion, source, output):
    """Write model.pth, config.yaml and keys.txt, which lists every key, or nothing."""
    if os.path.exists(output) and (not os.path.isdir(output) or os.listdir(output)):
        raise InputError(f"--output {output}: is there already, and not an empty folder")
    cfg = conversion.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = os.path.abspath(os.path.join(output, "model.pth"))
    cfg.MODEL.DEVICE = "cuda"
    lines = [f"mapped  {theirs} -> {ours}" for theirs, ours in conversion.mapped.items()]
    lines += [f"left    {theirs}" for theirs in conversion.left]
    lines += [f"filled  {ours} ({conversion.weights[ours].flatten()[0]:g})" for ours in conversion.filled]
    parent = os.path.dirname(os.path.abspath(output))
    try:
        os.makedirs(parent, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"--output {output}: cannot make this folder ({error.strerror})") from error
    try:
        with folder as draft:
            model = {"model": conversion.weights, "source": os.path.basename(source)}
            with open(os.path.join(draft, "model.pth"), "wb") as file:
                torch.save(model, file)
            Path(draft, "config.yaml").write_text(cfg.dump())
            Path(draft, "keys.txt").write_text("\n".join(lines) + "\n")
            os.chmod(draft, 0o755)
            if os.path.isdir(output):
                os.rmdir(output)
            os.rename(draft, output)
    except (OSError, RuntimeError) as error:  # torch's writer raises a RuntimeError from an OSError
        raise InputError(f"--output {output}: cannot write there ({reason(error)})") from error


def run(arguments=None):
    with one_line_errors():
        main(parse_with_opts(get_parser(), arguments))
