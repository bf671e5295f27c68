"""A training step of all processes that leaves the weights alone if losses or gradient are not finite.

The device decides that, and the host goes on without waiting for it. Once in a while the host reads what has happened.
"""

import itertools
import logging
import time

import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from ..errors import AgreedError, InputError
from ..utils.comm import object_group
from .optimizers import make_skippable
from .skipped_batches import SkippedBatches, images_of
from .unread import Unread, are_finite, without_gradient

logger = logging.getLogger(__name__)

# Iterations between two readings at most: the period of Detectron2's writers.
READING_PERIOD = 20
# Skipped batches that are written to disk.
MAX_KEPT = 10
LESS_MEMORY = "a lower SOLVER.IMS_PER_BATCH or INPUT.MAX_SIZE_TRAIN needs less"


class TrainingStep(SimpleTrainer):
    """Replaces Detectron2's SimpleTrainer and AMPTrainer.

    After the backward pass the processes add up their losses and gradient norms. Where a sum is not finite the
    optimizer skips the batch, in all processes. After more skipped batches than allowed it skips all others, too, until
    `read` raises an error. `read` also stores the losses. It runs every READING_PERIOD iterations and wherever an
    evaluation, a checkpoint or the end of training follows.

    Args:
        cfg (CfgNode): its keys SOLVER.AMP, SOLVER.MAX_SKIPPED_BATCHES, DATALOADER.MAX_UNREADABLE, OUTPUT_DIR, and those
            of periods.
        model, optimizer: see SimpleTrainer; the optimizer is one of `build_optimizer`.
        data_loader: has the batch of an iteration as `batch(iteration)`, too.
        stop_signal_here (callable): () -> str or None, the stop signal that this process has received; that of any
            process becomes `stop_signal`.
    """

    def __init__(self, cfg, model, data_loader, optimizer, stop_signal_here=lambda: None):
        super().__init__(model, data_loader, optimizer)
        make_skippable(optimizer)
        amp, device = cfg.SOLVER.AMP, next(model.parameters()).device
        self.autocast = {"device_type": device.type, "dtype": getattr(torch, amp.PRECISION), "enabled": amp.ENABLED}
        is_scaled = amp.ENABLED and amp.PRECISION == "float16"
        self.grad_scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)
        self.max_skipped_batches, self.max_unreadable = cfg.SOLVER.MAX_SKIPPED_BATCHES, cfg.DATALOADER.MAX_UNREADABLE
        self.skipped_batches = SkippedBatches(cfg.OUTPUT_DIR)
        self.stop_signal_here, self.stop_signal = stop_signal_here, None
        self.skipped, self.unreadable = 0, set()  # number of batches, names of images
        self.num_iterations = cfg.SOLVER.MAX_ITER
        periods = READING_PERIOD, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.VIS_PERIOD
        self.periods = [period for period in periods if period > 0]
        self._unread = Unread()
        self._num_skipped = torch.zeros((), dtype=torch.int64, device=device)  # with those that are not read yet
        self._out_of_memory = None

    def run_step(self):
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self._train_on(batch)
        self._exchange(batch, data_time)
        done = self.iter + 1
        if self.stop_signal or done == self.num_iterations or any(done % period == 0 for period in self.periods):
            self.read()

    def _train_on(self, batch):
        if self._out_of_memory is None:
            self._out_of_memory = self.skipped_batches.out_of_memory()
        if self.iter in self._out_of_memory:
            self._skip_for_memory("memory did not suffice before")
            return
        try:
            losses = self._backward(batch)
        except torch.OutOfMemoryError as error:
            self._handle_out_of_memory(batch, error)
        else:
            self._update(losses)

    def _backward(self, batch):
        """Return the losses of a batch, a dict of scalars, and leave their gradient in the parameters."""
        with torch.autocast(**self.autocast):
            losses = self.model(batch)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        return losses

    @torch.no_grad()
    def _update(self, losses):
        """Change the weights, unless the device finds that it must not."""
        parameters = itertools.chain(*(group["params"] for group in self.optimizer.param_groups))
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        is_scaled = self.grad_scaler.is_enabled()
        # Scaled gradients may overflow; the scaler checks them.
        norm = {} if is_scaled else {"gradient": torch.nn.utils.get_total_norm(gradients)}
        named = {**losses, **norm}
        values = torch.stack(list(named.values()))
        sums = values.clone()
        if comm.get_world_size() > 1:
            dist.all_reduce(sums)
        self._unread.add(self.iter, list(named), values, sums)

        is_bad = ~sums.isfinite().all()
        self._num_skipped += is_bad
        must_skip = is_bad | (self._num_skipped > self.max_skipped_batches)
        if is_scaled:
            min(gradients, key=torch.Tensor.numel).masked_fill_(must_skip, torch.nan)  # the scaler finds it
            self.grad_scaler.unscale_(self.optimizer)  # before gradients are clipped
        else:
            self.optimizer.found_inf = must_skip.float()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _exchange(self, batch, data_time):
        """Tell all processes what the device does not know: stop signals, unreadable images and the time to load."""
        signal, unreadable = self.stop_signal_here(), [i for record in batch for i in record.get("unusable", ())]
        notes = [(signal, unreadable)]
        if comm.get_world_size() > 1:
            times = torch.tensor([data_time, bool(signal or unreadable)], dtype=torch.float64)
            dist.all_reduce(times, dist.ReduceOp.MAX, group=object_group())
            data_time, is_any = times.tolist()
            notes = comm.all_gather(notes[0]) if is_any else []
        if comm.is_main_process():
            get_event_storage().put_scalar("data_time", data_time)
        for signal, unreadable in notes:
            self.stop_signal = self.stop_signal or signal
            for name, reason in unreadable:
                if name not in self.unreadable:
                    self.unreadable.add(name)
                    logger.warning("%s; another image takes its place (%d so far).", reason, len(self.unreadable))
        if len(self.unreadable) > self.max_unreadable:
            raise AgreedError(
                f"{reason}; {len(self.unreadable)} images of the run cannot be used, more than "
                f"DATALOADER.MAX_UNREADABLE {self.max_unreadable}"
            )

    def read(self):
        """Collective: wait for the device; store the losses since the last reading, and count the skipped batches.

        Raises an AgreedError if these are more than allowed: the weights are then those before the first excess one.
        """
        for reading in self._unread.read():
            if comm.is_main_process() and are_finite(reading.losses):
                storage = get_event_storage()
                now, storage.iter = storage.iter, reading.iteration
                storage.put_scalars(total_loss=sum(reading.losses.values()), **reading.losses)
                storage.iter = now
            if not are_finite(reading.means):
                self._skip_not_finite(reading)

    def _skip_not_finite(self, reading):
        batch = []
        try:
            batch = self.data_loader.batch(reading.iteration) if reading.is_suspect() else []
        except InputError as error:  # an image that was there before
            logger.warning("%s", error)
        if batch and self.skipped < MAX_KEPT:
            self.skipped_batches.keep(reading.iteration, batch, without_gradient(reading.here))
        names = comm.all_gather([record["file_name"] for record in batch])
        values = ", ".join(f"{name} {value:.3g}" for name, value in reading.means.items())
        self._skip(
            reading.iteration,
            f"the loss or its gradient is not finite ({values}); images {', '.join(itertools.chain(*names))}, kept in "
            f"{self.skipped_batches.path}",
            "a lower SOLVER.BASE_LR or SOLVER.CLIP_GRADIENTS.ENABLED True may help",
        )

    def _skip(self, iteration, why, advice):
        """Count a skipped batch in all processes; end training if there are too many."""
        self.skipped += 1
        message = f"iteration {iteration}: {why}"
        if self.skipped > self.max_skipped_batches:
            raise AgreedError(f"{message}; {advice}; SOLVER.MAX_SKIPPED_BATCHES N skips up to N such batches")
        logger.warning("%s. The batch is skipped (%d so far).", message, self.skipped)

    def _skip_for_memory(self, why):
        self.read()
        self._num_skipped += 1
        self._skip(self.iter, why, LESS_MEMORY)

    def _handle_out_of_memory(self, batch, error):
        """Skip the batch; end a run of several processes, because the others wait for the gradient of this one."""
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        message = f"memory does not suffice for {images_of(batch)}"
        if comm.get_world_size() == 1:
            self._skip_for_memory(message)
            return
        self.skipped_batches.add_out_of_memory(self.iter)
        raise InputError(
            f"iteration {self.iter}, process {comm.get_rank()}: {message}; {LESS_MEMORY}; with --resume and "
            "SOLVER.MAX_SKIPPED_BATCHES N the run goes on without this batch (torchrun --max-restarts starts it again)"
        ) from error

    def state_dict(self):
        skipped = int(self._num_skipped)  # waits; includes what the host has not read
        if skipped > self.max_skipped_batches:
            if comm.get_world_size() == 1:
                self.read()  # names the images
            raise InputError(
                f"iteration {self.iter}: no checkpoint, because more batches than SOLVER.MAX_SKIPPED_BATCHES "
                f"{self.max_skipped_batches} had losses or gradients that are not finite"
            )
        # The state of the scaler is empty without float16.
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict(), "skipped_batches": skipped}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        make_skippable(self.optimizer)
        self.skipped = state_dict.get("skipped_batches", 0)
        self._num_skipped.fill_(self.skipped)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
