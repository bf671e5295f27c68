"""What the processes of a run decide together, besides `detectron2.utils.comm`."""

import contextlib
from functools import cache

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from ..errors import AgreedError, InputError


def parallel(model, broadcast_buffers=False, **options):
    """The model as several processes train it together; as it is where there is one.

    Args:
        broadcast_buffers, options: of DistributedDataParallel.
    """
    if comm.get_world_size() == 1:
        return model
    device_ids = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=broadcast_buffers, **options)


@contextlib.contextmanager
def agreeing():
    """All processes go on, or none: an `InputError` of one is an `AgreedError` of all. Every process must come here."""
    error = None
    try:
        yield
    except InputError as raised:
        error = raised
    errors = [found for found in comm.all_gather(error and str(error)) if found is not None]
    if errors:
        raise AgreedError(errors[0]) from error


def from_main(make):
    """What the main process makes, in every process; every process must come here.

    Args:
        make: function without arguments, run in the main process alone.

    Raises:
        AgreedError: the main process raised an `InputError`.
    """
    made = [None]
    with agreeing():
        if comm.is_main_process():
            made = [make()]
    if comm.get_world_size() > 1:
        dist.broadcast_object_list(made, src=0, group=object_group())
    return made[0]


@cache
def object_group():
    """A group of all processes that talks in Python objects without a GPU."""
    return dist.new_group(backend="gloo")
