"""The folder `skipped_batches` of a run."""

import logging
from pathlib import Path

import torch
from detectron2.utils import comm

from ..checkpoints.files import write_whole
from ..errors import InputError

logger = logging.getLogger(__name__)


class SkippedBatches:
    """Writes batches whose loss or gradient is not finite, and the iterations for which memory did not suffice."""

    def __init__(self, output_dir):
        self.path = Path(output_dir, "skipped_batches")
        # Iterations for which memory did not suffice in one of several processes, one per line.
        self._out_of_memory = self.path / "out_of_memory.txt"

    def keep(self, iteration, batch, losses):
        """Write a batch, as the model gets it, and its losses to a file for `torch.load`."""
        records = [
            {"file_name": r["file_name"], "image_id": r.get("image_id"), "image": r["image"],
             "boxes": r["instances"].gt_boxes.tensor, "classes": r["instances"].gt_classes} for r in batch
        ]  # fmt: skip
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"iteration_{iteration:07d}_process_{comm.get_rank()}.pth"
        try:
            write_whole(str(path), lambda file: torch.save({"batch": records, **losses}, file))
        except InputError as error:
            logger.warning("%s", error)

    def out_of_memory(self):
        """Collective: the iterations that `add_out_of_memory` has recorded where the main process runs."""
        try:
            recorded = set(map(int, self._out_of_memory.read_text(encoding="utf-8").split()))
        except (OSError, ValueError):
            recorded = set()
        return comm.all_gather(recorded)[0]

    def add_out_of_memory(self, iteration):
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self._out_of_memory, "a", encoding="utf-8") as file:
            file.write(f"{iteration}\n")

    def forget_out_of_memory(self):
        """Forget the iterations of an earlier training in the same folder."""
        self._out_of_memory.unlink(missing_ok=True)


def images_of(batch):
    """The images of a batch, with their sizes as the model gets them and their numbers of objects, as text."""
    return ", ".join(f"{r['file_name']} ({r['image'].shape[2]} x {r['image'].shape[1]}, {len(r['instances'])} objects)"
                     for r in batch)  # fmt: skip
