"""Communication of the processes of a run, in addition to `detectron2.utils.comm`."""

import contextlib
from functools import cache

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from ..errors import AgreedError, InputError


def parallel(model):
    """Wrap the model in DistributedDataParallel if there are several processes."""
    if comm.get_world_size() == 1:
        return model
    device_ids = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


@contextlib.contextmanager
def agreeing():
    """Collective: an `InputError` in one process raises an `AgreedError` in all of them."""
    error = None
    try:
        yield
    except InputError as raised:
        error = raised
    errors = [found for found in comm.all_gather(error and str(error)) if found is not None]
    if errors:
        raise AgreedError(errors[0]) from error


def from_main(make):
    """Collective: return the result of `make()` of the main process in every process; see `agreeing` for its errors."""
    made = [None]
    with agreeing():
        if comm.is_main_process():
            made = [make()]
    if comm.get_world_size() > 1:
        dist.broadcast_object_list(made, src=0, group=object_group())
    return made[0]


@cache
def object_group():
    """Group of all processes for Python objects, which need no GPU."""
    return dist.new_group(backend="gloo")
