"""A training step of all processes that checks losses and gradient before it changes the weights."""

import itertools
import logging
import time
from pathlib import Path

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from ..checkpoints.files import write_whole
from ..errors import AgreedError, InputError

logger = logging.getLogger(__name__)

# Skipped batches that are written to disk.
MAX_KEPT = 10
LESS_MEMORY = "a lower SOLVER.IMS_PER_BATCH or INPUT.MAX_SIZE_TRAIN needs less"


class TrainingStep(SimpleTrainer):
    """Replaces Detectron2's SimpleTrainer and AMPTrainer by a step that leaves the weights alone if something fails.

    After the backward pass every process sends its losses, gradient norm, unreadable images and stop signal to all
    others, so that all of them step, skip the batch or stop together.

    Args:
        cfg (CfgNode): its keys SOLVER.AMP.ENABLED, SOLVER.MAX_SKIPPED_BATCHES, DATALOADER.MAX_UNREADABLE, OUTPUT_DIR.
        model, data_loader, optimizer: see SimpleTrainer.
        stop_signal_here (callable): () -> str or None, the stop signal that this process has received; that of any
            process becomes `stop_signal`.
    """

    def __init__(self, cfg, model, data_loader, optimizer, stop_signal_here=lambda: None):
        super().__init__(model, data_loader, optimizer)
        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=cfg.SOLVER.AMP.ENABLED)
        self.max_skipped_batches, self.max_unreadable = cfg.SOLVER.MAX_SKIPPED_BATCHES, cfg.DATALOADER.MAX_UNREADABLE
        self.folder = Path(cfg.OUTPUT_DIR, "skipped_batches")
        self.stop_signal_here, self.stop_signal = stop_signal_here, None
        self.skipped, self.unreadable = 0, set()  # number of batches, names of images
        # Iterations for which memory did not suffice in one of several processes, one per line.
        self._out_of_memory_file = self.folder / "out_of_memory.txt"
        self._out_of_memory = None

    def run_step(self):
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self._out_of_memory is None:
            self._out_of_memory = comm.all_gather(read_iterations(self._out_of_memory_file))[0]
        if self.iter in self._out_of_memory:
            self._skip("memory did not suffice before", LESS_MEMORY)
            return
        try:
            losses = self._backward(batch)
        except torch.OutOfMemoryError as error:
            self._handle_out_of_memory(batch, error)
            return
        reports = self._exchange(batch, losses, data_time)
        self._write_losses(reports)
        if all(np.isfinite([*report["losses"].values(), report["gradient"]]).all() for report in reports):
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self._skip_not_finite(batch, reports)

    def _backward(self, batch):
        """Return the losses of a batch, a dict of scalars, and leave their gradient in the parameters."""
        with torch.autocast("cuda", torch.float16, enabled=self.grad_scaler.is_enabled()):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        return losses

    def _exchange(self, batch, losses, data_time):
        """Return the reports of all processes on their step, a list of dicts by rank."""
        parameters = list(self.model.parameters())
        # Scaled gradients may overflow; GradScaler checks them.
        gradients = [] if self.grad_scaler.is_enabled() else [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).to(parameters[0].device)
        *values, norm = torch.stack([*losses.values(), norm]).tolist()  # synchronizes with the GPU once
        report = {
            "losses": dict(zip(losses, values, strict=True)),
            "gradient": norm,
            "data_time": data_time,
            "stop_signal": self.stop_signal_here(),
            "unreadable": [image for record in batch for image in record.get("unusable", ())],
        }
        reports = comm.all_gather(report)
        for report in reports:
            self.stop_signal = self.stop_signal or report["stop_signal"]
            for name, reason in report["unreadable"]:
                if name not in self.unreadable:
                    self.unreadable.add(name)
                    logger.warning("%s; another image takes its place (%d so far).", reason, len(self.unreadable))
        if len(self.unreadable) > self.max_unreadable:
            raise AgreedError(
                f"{reason}; {len(self.unreadable)} images of the run cannot be used, more than "
                f"DATALOADER.MAX_UNREADABLE {self.max_unreadable}"
            )
        return reports

    def _write_losses(self, reports):
        """Write the mean losses to the event storage of the main process, as SimpleTrainer does."""
        if comm.is_main_process():
            losses, storage = mean_losses(reports), get_event_storage()
            storage.put_scalar("data_time", max(report["data_time"] for report in reports))
            if np.isfinite(list(losses.values())).all():
                storage.put_scalars(total_loss=sum(losses.values()), **losses)

    def _skip_not_finite(self, batch, reports):
        rank, finite = comm.get_rank(), [np.isfinite(list(report["losses"].values())).all() for report in reports]
        # If the losses of some processes are finite, their batches are not the cause.
        is_suspect = all(finite) or not finite[rank]
        if is_suspect and self.skipped < MAX_KEPT:
            self._keep(batch, reports[rank]["losses"])
        names = comm.all_gather([record["file_name"] for record in batch] if is_suspect else [])
        self.optimizer.zero_grad()
        values = {**mean_losses(reports), "gradient": reports[rank]["gradient"]}
        self._skip(
            f"the loss or its gradient is not finite ({', '.join(f'{k} {v:.3g}' for k, v in values.items())}); "
            f"images {', '.join(itertools.chain(*names))}, kept in {self.folder}",
            "a lower SOLVER.BASE_LR or SOLVER.CLIP_GRADIENTS.ENABLED True may help",
        )

    def _skip(self, why, advice):
        """Count a skipped batch in all processes; end training if there are too many."""
        self.skipped += 1
        message = f"iteration {self.iter}: {why}"
        if self.skipped > self.max_skipped_batches:
            raise AgreedError(f"{message}; {advice}; SOLVER.MAX_SKIPPED_BATCHES N skips up to N such batches")
        logger.warning("%s. The batch is skipped (%d so far).", message, self.skipped)

    def _keep(self, batch, losses):
        """Write a batch, as the model gets it, and its losses to a file for `torch.load`."""
        records = [
            {"file_name": r["file_name"], "image_id": r.get("image_id"), "image": r["image"],
             "boxes": r["instances"].gt_boxes.tensor, "classes": r["instances"].gt_classes} for r in batch
        ]  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"iteration_{self.iter:07d}_process_{comm.get_rank()}.pth"
        try:
            write_whole(str(path), lambda file: torch.save({"batch": records, **losses}, file))
        except InputError as error:
            logger.warning("%s", error)

    def _handle_out_of_memory(self, batch, error):
        """Skip the batch; end a run of several processes, because the others wait for the gradient of this one."""
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        images = ", ".join(f"{r['file_name']} ({r['image'].shape[2]} x {r['image'].shape[1]}, {len(r['instances'])} "
                           "objects)" for r in batch)  # fmt: skip
        message = f"memory does not suffice for {images}"
        if comm.get_world_size() == 1:
            self._skip(message, LESS_MEMORY)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self._out_of_memory_file, "a", encoding="utf-8") as file:
            file.write(f"{self.iter}\n")
        raise InputError(
            f"iteration {self.iter}, process {comm.get_rank()}: {message}; {LESS_MEMORY}; with --resume and "
            "SOLVER.MAX_SKIPPED_BATCHES N the run goes on without this batch (torchrun --max-restarts starts it again)"
        ) from error

    def forget_out_of_memory(self):
        """Forget the batches that were too large for an earlier training in the same folder."""
        self._out_of_memory_file.unlink(missing_ok=True)

    def state_dict(self):
        # The state of the scaler is empty without mixed precision.
        ours = {"grad_scaler": self.grad_scaler.state_dict(), "skipped_batches": self.skipped}
        return {**super().state_dict(), **ours}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.skipped = state_dict.get("skipped_batches", 0)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def mean_losses(reports):
    return {name: np.mean([report["losses"][name] for report in reports]) for name in reports[0]["losses"]}


def read_iterations(path):
    try:
        return set(map(int, path.read_text(encoding="utf-8").split()))
    except (OSError, ValueError):
        return set()
