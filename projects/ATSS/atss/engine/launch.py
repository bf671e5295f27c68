"""Runs of several processes: how they start, find each other, and do together what one of them must do.

A process is one of several where `torchrun` has started it, or `launch` has. Processes talk over NCCL where each has
a GPU, over gloo where they compute on CPUs.
"""

import contextlib
import datetime
import logging
import multiprocessing
import os
import signal
import socket
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, start_processes

from ..errors import InputError, first_line, one_line_errors
from ..utils.comm import object_group

logger = logging.getLogger(__name__)

# What schedulers send before they take a machine away.
NOTICES = (signal.SIGTERM, signal.SIGUSR1)
# A process waits this long for the others: the main one may evaluate meanwhile.
TIMEOUT = datetime.timedelta(minutes=30)


def launch(main, args, find_device):
    """Run `main(args)` in as many processes as Detectron2's arguments, or torchrun, want.

    Args:
        main: function that all processes run.
        args: of `detectron2.engine.default_argument_parser`: `num_gpus` is the number of processes of a machine, which
            need no GPUs where they compute on CPUs.
        find_device: function without arguments -> "cuda" or "cpu", what they compute on; needed for several alone.

    Raises:
        InputError: more processes than GPUs, or addresses that cannot be used.
        SystemExit: a process that was started here has failed.
    """
    if dist.is_torchelastic_launched():
        with joined(find_device()):
            main(args)
    elif args.num_gpus * args.num_machines == 1:
        main(args)
    else:
        _spawn(main, args, find_device())


def _spawn(main, args, device):
    cores, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    if args.num_gpus > (gpus if device == "cuda" else cores):
        raise InputError(f"--num-gpus {args.num_gpus}: this machine has {gpus} GPUs and {cores} CPU cores")
    host, port = _address(args)
    world_size = args.num_gpus * args.num_machines
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size),
                   "LOCAL_WORLD_SIZE": str(args.num_gpus), "GROUP_RANK": str(args.machine_rank)}  # fmt: skip
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(cores // args.num_gpus)
    arguments = main, args, device, multiprocessing.get_start_method()
    started = start_processes(_spawned, arguments, args.num_gpus, join=False, start_method="spawn")
    for notice in NOTICES:
        signal.signal(notice, lambda number, frame: [os.kill(pid, number) for pid in started.pids()])
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it tells whom it ends with the first
    try:
        while not started.join():
            pass
    except ProcessExitedException as error:
        # It has said why, unless something from outside has ended it.
        if error.signal_name:
            raise InputError(f"process {error.error_index} of the run was ended by {error.signal_name}") from None
        raise SystemExit(error.exit_code) from None


def _spawned(local_rank, main, args, device, start_method):
    # Of data workers. A spawned process would else start them as slowly as itself.
    multiprocessing.set_start_method(start_method, force=True)
    rank = int(os.environ["GROUP_RANK"]) * args.num_gpus + local_rank
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(local_rank)}
    with one_line_errors(), joined(device):
        main(args)


def _address(args):
    """Host and port of the main process."""
    if args.dist_url == "auto":
        if args.num_machines > 1:
            raise InputError("--dist-url auto: several machines need the address of the first, tcp://HOST:PORT")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return free.getsockname()
    url = urlparse(args.dist_url)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if url.scheme != "tcp" or not host or not port:
        raise InputError(f"--dist-url {args.dist_url}: expected tcp://HOST:PORT, of the first machine")
    return host, port


@contextlib.contextmanager
def joined(device):
    """As one of the processes that the environment describes, in torchrun's variables.

    Raises:
        InputError: this machine has fewer GPUs than processes.
    """
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device == "cuda":
        if local_size > torch.cuda.device_count():
            raise InputError(f"{local_size} processes on this machine, which has {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise InputError(
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: the processes cannot meet there "
            f'({first_line(error)}); --dist-url names another address, tcp://HOST:PORT, or "auto" on one machine'
        ) from error
    try:
        machine = int(os.environ["GROUP_RANK"])
        machines = comm.all_gather(machine)
        for other in sorted(set(machines)):
            group = dist.new_group([rank for rank, where in enumerate(machines) if where == other])
            if other == machine:
                comm._LOCAL_PROCESS_GROUP = group
        yield
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        object_group.cache_clear()
        dist.destroy_process_group()
