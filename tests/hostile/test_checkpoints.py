"""Hostile checkpoints, through train_net.py and tools/convert_checkpoint.py."""

import builtins
import io
import os
import pickle
import re
import subprocess
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from atss.checkpoints.reading import read_file, read_weights
from atss.errors import InputError
from tests.checkpoints import layouts
from tests.helpers import DEMO_CONFIG, error_line, run

pytestmark = pytest.mark.slow

SMALL = layouts.Architecture(channels=64)


class Runs:
    """Pickles as a call, whose result gets `state`."""

    def __init__(self, function, *arguments, state=None):
        self.call = function, arguments, state

    def __reduce__(self):
        return self.call[: 2 if self.call[2] is None else 3]


# What makes the file `marker` when it is read by a reader that runs code.
PAYLOADS = {
    "os.system": lambda marker: Runs(os.system, f"touch {marker}"),
    "eval": lambda marker: Runs(eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Runs(exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Runs(open, str(marker), "w"),
    "getattr": lambda marker: Runs(Runs(getattr, os, "mknod"), str(marker)),
    "popen": lambda marker: Runs(subprocess.Popen, ("touch", str(marker))),
    "import": lambda marker: Runs(builtins.__import__, "antigravity"),
}


def torch_bytes(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


WRITERS = {
    "zip.pth": torch_bytes,
    "legacy.pth": partial(torch_bytes, _use_new_zipfile_serialization=False),
    "zip.pyth": torch_bytes,
    "pickle.pkl": pickle.dumps,
    "pickle.pth": pickle.dumps,
}


@pytest.fixture
def refused(doors, tmp_path):
    """Function: name and bytes of a checkpoint -> the lines of both commands that read one, which name the file.

    A `.pkl` file is read with the switch for pickles.
    """

    def refuse(name, data=None):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        allowed = path.suffix == ".pkl"
        lines = [
            doors.train({"MODEL.WEIGHTS": path, **({"MODEL.ATSS.ALLOW_PICKLE": True} if allowed else {})}),
            doors.convert(path, *(["--allow-pickle"] if allowed else [])),
        ]
        assert all(str(path) in line for line in lines), lines
        return lines

    return refuse


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_code_in_a_checkpoint_never_runs(doors, refused, payload, writer):
    content = {"model": {"a": np.zeros(3) if writer.endswith(".pkl") else torch.zeros(3)}}
    try:
        data = WRITERS[writer]({**content, "extra": PAYLOADS[payload](doors.marker)})
    except (pickle.PicklingError, TypeError):  # modules cannot be pickled
        data = WRITERS[writer]({**content, "extra": Runs(getattr, "", "join")})

    reason = rf"holds [\w.]*{payload.rpartition('.')[2]}\w* besides weights, which could run code: not read"
    for line in refused(f"evil_{writer}", data):
        assert re.search(reason, line, re.IGNORECASE) or payload == "getattr" or writer == "pickle.pth", line


@pytest.mark.parametrize("content", [{"model": {"a": np.zeros(3)}}, Runs(os.system, "true")], ids=["plain", "code"])
def test_pickles_are_not_opened_without_the_switch(doors, tmp_path, content):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(content))

    for line in (doors.train({"MODEL.WEIGHTS": path}), doors.convert(path)):
        assert "MODEL.ATSS.ALLOW_PICKLE True" in line and "--allow-pickle" in line
        assert "can run code" in line


def test_with_the_switch_numbers_are_read(tmp_path):
    content = {"model": {"a": np.arange(6, dtype="<f8").reshape(2, 3), "b": np.float32(2)}, "n": np.int64(3)}
    content["model"]["c"] = np.asfortranarray(content["model"]["a"])
    content["model"]["d"] = np.zeros((0, 3), dtype=bool)
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))

        weights, _ = read_weights(path, allow_pickle=True)

        assert weights["a"].tolist() == weights["c"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert read_file(path, allow_pickle=True)["n"] == 3


@pytest.mark.parametrize("part", [0, 1, 4, 10, 30, 0.25, 0.5, 0.9, -1])
@pytest.mark.parametrize("writer", WRITERS)
def test_truncated_checkpoints(refused, writer, part):
    weights = {f"layer{i}.weight": np.ones((8, 8), np.float32) for i in range(5)}
    if not writer.startswith("pickle"):
        weights = {name: torch.from_numpy(value) for name, value in weights.items()}
    data = WRITERS[writer]({"model": weights})

    for line in refused(f"cut_{writer}", data[: part if isinstance(part, int) else int(part * len(data))]):
        assert f"cut_{writer}: truncated, or not a checkpoint" in line


NOISE = np.random.default_rng(0).bytes(5000)
NO_CHECKPOINTS = {
    "noise": NOISE,
    "noise behind the start of a zip": b"PK\x03\x04" + NOISE,
    "noise behind the start of a pickle": b"\x80\x02" + NOISE,
    "zeros": bytes(100_000),
    "text": b"weights\n" * 1000,
    "html": b"<!DOCTYPE html><html>404</html>",
    "json": b'{"model": {}}',
    "safetensors": b"\x08\0\0\0\0\0\0\0{}      ",
    "gzip": b"\x1f\x8b\x08\0" + NOISE,
    "memo of a pickle that grows": b"\x80\x02" + b"]q\0" + b"h\0" * 5000 + b".",
    "marks of a pickle": b"(" * 100_000,
    "nested lists of a pickle": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "long number of a pickle": b"\x80\x02\x8b\xff\xff\xff\x7f",
    "long text of a pickle": b"\x80\x02X\xff\xff\xff\x7f",
    "extension registry of a pickle": b"\x80\x02\x82\x01.",
    "persistent id of a pickle": b"\x80\x02U\x01aQ.",
}
LISTS = [(".pkl", "memo of a pickle that grows"), (".pkl", "nested lists of a pickle")]


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_files_that_are_not_checkpoints(refused, name, suffix):
    for line in refused(f"no{suffix}", NO_CHECKPOINTS[name]):
        assert "truncated, or not a checkpoint" in line or (suffix, name) in LISTS


LARGE = b"\0\0\0\x10"
ANNOUNCED = {
    "object": b"}r" + LARGE,
    "bytearray": b"\x96" + LARGE + bytes(4) + b"abc",
    "bytes": b"\x8e" + LARGE + bytes(4) + b"abc",
    "text": b"X" + LARGE + b"abc",
    "number": b"\x8b" + LARGE + b"abc",
    "frame": b"\x95" + LARGE + bytes(4) + b"abc",
}


@pytest.mark.parametrize("data", ANNOUNCED.values(), ids=ANNOUNCED)
def test_sizes_that_a_pickle_announces_allocate_no_memory(tmp_path, data):
    """Found by fuzzing: a number of 32 bits for an object made room for as many, and a length for as many bytes."""
    path = tmp_path / "few_bytes.pkl"
    path.write_bytes(b"\x80\x05" + data + b".")
    tracemalloc.start()

    with pytest.raises(InputError):
        read_weights(path, allow_pickle=True)

    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def spread(shape):
    return torch.zeros(()).expand(shape)


THEIRS = layouts.mmdetection(SMALL, light=True)["state_dict"]
CONTENTS = {
    "list": [torch.zeros(3)],
    "number": 3,
    "nothing": None,
    "tensor": torch.zeros(3),
    "text": "model",
    "model is a list": {"model": [torch.zeros(3)]},
    "model is empty": {"model": {}},
    "keys are numbers": {"model": {1: torch.zeros(3)}},
    "a key is a number that is too long to print": {"model": {10**5000: torch.zeros(3)}},
    "keys are tuples": {"model": {("a", ("b",)): torch.zeros(3)}},
    # Found by fuzzing: what came after the end of the line was all that was said.
    "keys of several lines": {"model": {"conv1\r\nerror: \x1b[2Jall is well": 3}},
    "keys of several lines that have weights": {"model": {"conv1\n": torch.tensor([float("nan")])}},
    "long keys": {"model": {"a" * 100_000: 3}},
    "values are texts": {"model": {"a": "text"}},
    "values are lists": {"model": {"a": [1.0]}},
    "not a number": {"model": {"conv1.weight": torch.tensor([float("nan")])}},
    "infinite": {"model": {"conv1.weight": torch.tensor([float("inf")])}},
    "complex": {"model": {"conv1.weight": torch.zeros(3, dtype=torch.complex64)}},
    "sparse": {"model": {"conv1.weight": torch.eye(3).to_sparse()}},
    "quantised": {"model": {"conv1.weight": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}},
    "on no device": {"model": {"conv1.weight": torch.zeros(3, device="meta")}},
    "a trillion numbers that are one": {"model": {"conv1.weight": spread((10**6, 10**6))}},
    "shapes with no numbers": {"model": {"conv1.weight": spread((0, 10**12))}},
    "another model": {"model": torch.nn.Linear(3, 3).state_dict()},
    "paper's repository with a new layer": {
        **layouts.paper(SMALL, light=True)["model"], "module.rpn.new.weight": spread(3),
    },
    "torchvision of impossible shapes": {k: spread((0, 1)) for k in layouts.resnet(SMALL)},
    # Found by fuzzing: it took half a minute to give every class a name.
    "mmdetection of too many classes": {
        k: spread((200_000, *v.shape[1:])) if "atss_cls" in k else v for k, v in THEIRS.items()
    },
    "mmdetection of no classes": {k: spread((0, *v.shape[1:])) if "atss_cls" in k else v for k, v in THEIRS.items()},
    "mmdetection of a million channels": {
        k: spread((1 << 20, *v.shape[1:])) if v.ndim else v for k, v in THEIRS.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_weights_of_other_models(refused, content):
    refused("content.pth", torch_bytes(content))


ARRAYS = {
    "objects": np.array([None, 3], dtype=object),
    "fields": np.zeros(3, dtype=[("a", "f4"), ("b", "O")]),
    "texts": np.array(["a", "b"]),
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "complex": np.zeros(3, dtype="c8"),
    "long doubles": np.zeros(3, dtype="g"),
    "not a number": np.array([np.nan]),
}


F4 = np.dtype("f4")
STATES = {
    "more numbers than bytes": (1, (10**12,), F4, False, b"\0" * 8),
    "fewer numbers than bytes": (1, (1,), F4, False, b"\0" * 8),
    "negative side": (1, (-2,), F4, False, b"\0" * 8),
    "sides whose product is too large": (1, (1 << 62, 1 << 62), F4, False, b"\0" * 8),
    "a list instead of bytes": (1, (2,), F4, False, [1, 2]),
    "a dtype that is none": (1, (2,), "f4", False, b"\0" * 8),
    "too short": (1, (2,)),
    "empty": (),
}
EMPTY_ARRAY = np._core.multiarray._reconstruct, np.ndarray, (0,), b"b"
ARRAYS |= {name: Runs(*EMPTY_ARRAY, state=state) for name, state in STATES.items()}


@pytest.mark.parametrize("writer", ["zip.pth", "pickle.pkl"])
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_not_numbers_or_whose_state_does_not_fit(refused, array, writer):
    refused(f"array_{writer}", WRITERS[writer]({"model": {"conv1_w": array}}))


def rezipped(change=lambda name, data: data, compression=zipfile.ZIP_STORED, prefix="", size=None):
    """A good file of torch's, whose zip file is written again.

    `change` gives a record of this name and these bytes other bytes, or None to leave it out; `size` is what the index
    says of the size of every record.
    """
    whole, buffer = zipfile.ZipFile(io.BytesIO(torch_bytes({"model": {"a": torch.zeros(100, 100)}}))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in whole.namelist():
            if (data := change(name, whole.read(name))) is not None:
                archive.writestr(prefix + name, data, compression)
        for record in archive.infolist():
            record.file_size = size or record.file_size
    return buffer.getvalue()


BOMB = rezipped(lambda name, data: bytes(1 << 26) if "/data/" in name else data, zipfile.ZIP_DEFLATED)
CODE = b"\x80\x02cos\nsystem\nU\x04true\x85R."
ZIP_FILES = {
    "compressed": (rezipped(compression=zipfile.ZIP_DEFLATED), "compressed"),
    "bomb": (BOMB, "compressed"),
    "promising": (rezipped(size=1 << 31), "promises"),
    "without pickle": (rezipped(lambda name, data: None if name.endswith("data.pkl") else data), ""),
    "without storage": (rezipped(lambda name, data: None if "/data/" in name else data), ""),
    "short storage": (rezipped(lambda name, data: data[:10] if "/data/" in name else data), ""),
    "climbing": (rezipped(prefix="../../"), ""),
    "pickle only": (rezipped(lambda name, data: CODE if name.endswith("data.pkl") else None), ""),
}


@pytest.mark.parametrize("data, reason", ZIP_FILES.values(), ids=ZIP_FILES)
def test_zip_files_that_torch_would_not_write(refused, data, reason):
    assert all(reason in line for line in refused("zip.pth", data))


def test_zip_bombs_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pth"
    path.write_bytes(BOMB)
    monkeypatch.setattr(torch, "load", None)

    with pytest.raises(InputError, match="compressed"):
        read_file(path)


def test_torchscript_models(refused, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pth"))

    refused("script.pth")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)],
                         ids=["folder", "pipe", "device"])  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_files_that_are_not_regular(refused, tmp_path, make, suffix):
    make(tmp_path / f"no{suffix}")

    refused(f"no{suffix}")


def test_old_files_of_torch_still_load(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(WRITERS["legacy.pth"]({"model": {"a": torch.arange(3)}}))

    weights, _ = read_weights(path)

    assert weights["a"].tolist() == [0, 1, 2]


def test_the_command_as_a_process(doors, tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": {}, "extra": PAYLOADS["os.system"](doors.marker)}, path)

    result = run("train_net.py", "--config-file", DEMO_CONFIG, "MODEL.WEIGHTS", path, "OUTPUT_DIR", doors.output,
                 "MODEL.DEVICE", "cpu", check=False)  # fmt: skip

    assert "system" in error_line(result)
    assert not doors.marker.exists() and not doors.output.exists()
