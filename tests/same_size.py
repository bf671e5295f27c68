"""Train in float64 on images of one size, and write the losses of every iteration: a command for several processes.

Group normalisation sees the padding of a batch, so the batches of several processes differ where sizes do.
"""

import json
from pathlib import Path

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from atss.config import load_config
from atss.engine import Trainer, launch


class DoubleTrainer(Trainer):
    @classmethod
    def build_model(cls, cfg):
        return super().build_model(cfg).double()


def main(args):
    cfg = load_config(args.config_file, args.opts)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7 + comm.get_rank())  # the main process's weights are everyone's
    trainer = DoubleTrainer(cfg)
    trainer.train()
    if comm.is_main_process():
        histories = {name: h.values() for name, h in trainer.storage.histories().items() if "loss" in name}
        losses = [{name: values[i][0] for name, values in histories.items()} for i in range(trainer.max_iter)]
        Path(cfg.OUTPUT_DIR, "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args(), lambda: "cpu")
