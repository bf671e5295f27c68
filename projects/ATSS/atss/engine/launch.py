"""Start the processes of a run and connect them.

A run has several processes if `torchrun` or `launch` has started them. They communicate over NCCL if each has a GPU,
over gloo if they compute on CPUs.
"""

import contextlib
import datetime
import logging
import multiprocessing
import os
import random
import signal
import socket
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, start_processes

from ..errors import InputError, first_line, one_line_errors
from ..utils.comm import object_group

# Job schedulers send them some time before they end a job.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Below those of outgoing connections, which begin at 32768 on Linux: one of these could be taken before it is used.
PORTS = range(20_000, 32_000)
# How long a process waits for the others; the main one may evaluate meanwhile.
TIMEOUT = datetime.timedelta(minutes=30)


def launch(main, args, find_device):
    """Run `main(args)` in as many processes as Detectron2's arguments, or torchrun, ask for.

    `args` are from `default_argument_parser`: `num_gpus` is the number of processes per machine, also without GPUs.
    `find_device`, () -> "cuda" or "cpu", is called only if there are several processes.

    Raises:
        InputError: there are fewer GPUs than processes, or the address cannot be used.
        SystemExit: a started process has failed.
    """
    if dist.is_torchelastic_launched():
        with process_group(find_device()):
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
    # The variables that torchrun sets.
    world_size = args.num_gpus * args.num_machines
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size),
                   "LOCAL_WORLD_SIZE": str(args.num_gpus), "GROUP_RANK": str(args.machine_rank)}  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", str(cores // args.num_gpus))
    arguments = main, args, device, multiprocessing.get_start_method()
    started = start_processes(_run_process, arguments, args.num_gpus, join=False, start_method="spawn")
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: [os.kill(pid, number) for pid in started.pids()])
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # no line for every process that it ends
    try:
        while not started.join():
            pass
    except ProcessExitedException as error:
        # A process that fails by itself has printed why.
        if error.signal_name:
            raise InputError(f"process {error.error_index} of the run was ended by {error.signal_name}") from None
        raise SystemExit(error.exit_code) from None


def _run_process(local_rank, main, args, device, start_method):
    # Data workers start as in a run of one process; a spawned process would spawn them, which takes seconds.
    multiprocessing.set_start_method(start_method, force=True)
    rank = args.machine_rank * args.num_gpus + local_rank
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(local_rank)}
    with one_line_errors(), process_group(device):
        main(args)


def _address(args):
    """Host and port of the main process."""
    if args.dist_url == "auto":
        if args.num_machines > 1:
            raise InputError("--dist-url auto: several machines need the address of the first, tcp://HOST:PORT")
        return "127.0.0.1", free_port()
    try:
        url = urlparse(args.dist_url)
        if url.scheme == "tcp" and url.hostname and url.port:
            return url.hostname, url.port
    except ValueError:  # a port that is not a number
        pass
    raise InputError(f"--dist-url {args.dist_url}: expected tcp://HOST:PORT, of the first machine")


def free_port() -> int:
    """A TCP port of this machine that is free, and that the system gives to no other connection in the meantime."""
    for port in random.Random().sample(PORTS, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise InputError("--dist-url auto: no port is free; name an address, tcp://HOST:PORT")


@contextlib.contextmanager
def process_group(device):
    """Connect the processes that torchrun's environment variables describe.

    Raises:
        InputError: this machine has fewer GPUs than processes, or the processes cannot reach each other.
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
        machines = comm.all_gather(os.environ["GROUP_RANK"])
        ranks = {machine: [rank for rank, other in enumerate(machines) if other == machine] for machine in machines}
        groups = {machine: dist.new_group(ranks[machine]) for machine in ranks}
        comm._LOCAL_PROCESS_GROUP = groups[os.environ["GROUP_RANK"]]
        yield
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        object_group.cache_clear()
        dist.destroy_process_group()
