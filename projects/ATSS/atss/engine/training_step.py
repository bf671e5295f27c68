"""One training step of all processes: the gradient is looked at before the weights change."""

import contextlib
import logging
import os
import time

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from ..checkpoints.files import write_whole
from ..errors import AgreedError, InputError

logger = logging.getLogger(__name__)

# Batches that are kept to be looked at.
MAX_KEPT = 10
# File in the folder of skipped batches: iterations that ran out of memory, one a line.
OUT_OF_MEMORY = "out_of_memory.txt"
LESS_MEMORY = "a lower SOLVER.IMS_PER_BATCH or INPUT.MAX_SIZE_TRAIN needs less"


class TrainingStep(SimpleTrainer):
    """Detectron2's SimpleTrainer and AMPTrainer, whose step leaves the weights alone where something went wrong.

    What the processes tell each other after the gradient, they know all of: losses, and whether one of them has had a
    notice to stop. So they go on, skip the batch or stop together.

    Args:
        model, data_loader, optimizer: as of SimpleTrainer.
        mixed_precision: whether the forward pass is in float16 where that is safe; needs a CUDA GPU.
        max_skipped_batches: batches that may be skipped because loss or gradient are not finite, or memory is short.
        max_unreadable: distinct images that the loader may have replaced.
        folder: for skipped batches.
        notice: function without arguments -> text, a notice that this process has had; None where it has had none.

    Attributes:
        notice: the text of the first notice that any process has had, None until then.
        skipped: number of batches skipped so far.
    """

    def __init__(self, model, data_loader, optimizer, *, mixed_precision=False, max_skipped_batches=0, max_unreadable=0,
                 folder="skipped_batches", notice=lambda: None):  # fmt: skip
        super().__init__(model, data_loader, optimizer)
        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=mixed_precision)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.max_skipped_batches = max_skipped_batches
        self.max_unreadable = max_unreadable
        self.folder = folder
        self.notice_here = notice
        self.notice = None
        self.skipped = 0
        self.unreadable = {}
        self._too_large = None

    def run_step(self):
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self._was_too_large():
            self._skip("memory did not suffice before", LESS_MEMORY)
            return
        try:
            losses = self._gradient(batch)
        except torch.OutOfMemoryError as error:
            self._out_of_memory(batch, error)
            return
        facts = self._tell(batch, losses, data_time)
        self._write(facts)
        if all(np.isfinite([*known["losses"].values(), known["gradient"]]).all() for known in facts):
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self._not_finite(batch, facts)

    def _gradient(self, batch):
        """The losses of a batch, a dict of scalars; their gradient is in the parameters then."""
        with torch.autocast("cuda", torch.float16, enabled=self.grad_scaler.is_enabled()):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        return losses

    def _tell(self, batch, losses, data_time):
        """What every process knows of its step: a list of dicts, in the order of the processes."""
        # Scaled gradients may overflow: GradScaler looks at them.
        gradients = [] if self.grad_scaler.is_enabled() else [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).to(self.parameters[0].device)
        *values, norm = torch.stack([*losses.values(), norm]).tolist()  # one wait for a GPU
        return comm.all_gather(
            {
                "losses": dict(zip(losses, values, strict=True)),
                "gradient": norm,
                "data_time": data_time,
                "notice": self.notice_here(),
                "unreadable": [entry for record in batch for entry in record.get("unusable", ())],
            }
        )

    def _write(self, facts):
        """Losses into the event storage of the main process, as SimpleTrainer does; remember notices and images."""
        self.notice = self.notice or next((known["notice"] for known in facts if known["notice"]), None)
        self._count_unreadable([entry for known in facts for entry in known["unreadable"]])
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        storage.put_scalar("data_time", max(known["data_time"] for known in facts))
        losses = {name: np.mean([known["losses"][name] for known in facts]) for name in facts[0]["losses"]}
        if np.isfinite(list(losses.values())).all():
            storage.put_scalar("total_loss", sum(losses.values()))
            storage.put_scalars(**losses)

    def _count_unreadable(self, found):
        for name, reason in found:
            if name not in self.unreadable:
                self.unreadable[name] = reason
                logger.warning("%s; another image takes its place (%d so far).", reason, len(self.unreadable))
        if len(self.unreadable) > self.max_unreadable:
            raise AgreedError(
                f"{reason}; {len(self.unreadable)} images of the run cannot be used, more than "
                f"DATALOADER.MAX_UNREADABLE {self.max_unreadable}"
            )

    def _not_finite(self, batch, facts):
        own = facts[comm.get_rank()]
        losses_fine = [np.isfinite(list(known["losses"].values())).all() for known in facts]
        said = {name: np.mean([known["losses"][name] for known in facts]) for name in own["losses"]}
        what = ", ".join(f"{name} {value:.3g}" for name, value in {**said, "gradient": own["gradient"]}.items())
        # Where the losses of some are fine, theirs are not the batches to look at.
        suspect = not losses_fine[comm.get_rank()] or all(losses_fine)
        if suspect and self.skipped < MAX_KEPT:
            self._keep(batch, own)
        names = [name for mine in comm.all_gather(file_names(batch) if suspect else []) for name in mine]
        self.optimizer.zero_grad()
        told = f"the loss or its gradient is not finite ({what}); images {', '.join(names)}, kept in {self.folder}"
        self._skip(told, "a lower SOLVER.BASE_LR or SOLVER.CLIP_GRADIENTS.ENABLED True may help")

    def _skip(self, why, advice):
        """Count a batch that is skipped, in all processes; too many end the training."""
        self.skipped += 1
        told = f"iteration {self.iter}: {why}"
        if self.skipped > self.max_skipped_batches:
            raise AgreedError(f"{told}; {advice}; SOLVER.MAX_SKIPPED_BATCHES N skips up to N such batches")
        logger.warning("%s. The batch is skipped (%d so far).", told, self.skipped)

    def _keep(self, batch, facts):
        """Write a batch aside, as the model gets it: `torch.load(path)` gives a dict."""
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, f"iteration_{self.iter:07d}_process_{comm.get_rank()}.pth")
        records = [plain(record) for record in batch]
        try:
            write_whole(path, lambda file: torch.save({"batch": records, **facts["losses"]}, file))
        except InputError as error:
            logger.warning("%s", error)

    def _out_of_memory(self, batch, error):
        """One process skips the batch; of several, the others wait for its gradient, so all must start again."""
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        sizes = ", ".join(f"{r['file_name']} ({r['image'].shape[2]} x {r['image'].shape[1]}, {len(r['instances'])} "
                          "objects)" for r in batch)  # fmt: skip
        told = f"memory does not suffice for {sizes}"
        if comm.get_world_size() == 1:
            self._skip(told, LESS_MEMORY)
            return
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, OUT_OF_MEMORY), "a", encoding="utf-8") as file:
            file.write(f"{self.iter}\n")
        raise InputError(
            f"iteration {self.iter}, process {comm.get_rank()}: {told}; {LESS_MEMORY}; with --resume and "
            "SOLVER.MAX_SKIPPED_BATCHES N the run goes on without this batch (torchrun --max-restarts starts it again)"
        ) from error

    def _was_too_large(self):
        """Whether the run, before it was started again, had too little memory for this iteration."""
        if self._too_large is None:
            self._too_large = set(comm.all_gather(read_iterations(os.path.join(self.folder, OUT_OF_MEMORY)))[0])
        return self.iter in self._too_large

    def forget(self):
        """Of an earlier training in the same folder."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, OUT_OF_MEMORY))

    def state_dict(self):
        state = super().state_dict()
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return {**state, "skipped_batches": self.skipped}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.skipped = state_dict.get("skipped_batches", 0)
        if self.grad_scaler.is_enabled() and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def file_names(batch):
    return [record.get("file_name", "?") for record in batch]


def plain(record):
    """A mapped image without Detectron2's classes, which `torch.load` would not read."""
    objects = record.get("instances")
    found = {key: record[key] for key in ("file_name", "image_id", "image") if key in record}
    if objects is not None:
        found |= {"boxes": objects.gt_boxes.tensor, "classes": objects.gt_classes}
    return found


def read_iterations(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [int(line) for line in file if line.strip()]
    except (OSError, ValueError):
        return []
