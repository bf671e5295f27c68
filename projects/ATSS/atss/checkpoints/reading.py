"""Read weights from untrusted files without running code."""

import io
import math
import os
import pickle
import re
import zipfile
from typing import ClassVar

import numpy as np
import torch

from ..errors import InputError, first_line

MAX_NUMBERS = 10**9  # values in a checkpoint at most: ten times as many as the largest model has


class Inert:
    """Placeholder for objects that another framework stores next to the weights."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


class DType:
    """Placeholder for a pickled numpy dtype, restricted to numbers; numpy's own accepts any fields, and objects."""

    order = "<"

    def __init__(self, code, *others):
        self.code = code

    def __setstate__(self, state):
        self.order = state[1]

    def numpy(self):
        code = f"{self.order}{self.code}"
        # Byte order, then floats, signed and unsigned integers, and booleans.
        if not re.fullmatch("[<>=|][fiub][1248]", code):
            raise pickle.UnpicklingError("an array of something other than numbers")
        return np.dtype(code)


class Array(np.ndarray):
    """A pickled numpy array of numbers."""

    def __new__(cls, *others):
        return super().__new__(cls, (0,))

    def __setstate__(self, state):
        _, shape, dtype, by_column, data = state
        super().__setstate__((1, shape, dtype.numpy(), bool(by_column), as_bytes(data)))


def scalar(dtype, data):
    return np.frombuffer(as_bytes(data), dtype.numpy(), count=1)[0]


def from_buffer(data, dtype, shape, order):
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order=order).copy()


def as_bytes(data):
    """Bytes, which Python 2 pickled as a string."""
    return data if isinstance(data, bytes) else data.encode("latin1")


# The parts of pickled numpy arrays. numpy.core is numpy._core since numpy 2.
ARRAYS = {"numpy.ndarray": Array, "numpy.dtype": DType}
for core in ("numpy.core", "numpy._core"):
    ARRAYS[f"{core}.multiarray._reconstruct"] = Array
    ARRAYS[f"{core}.multiarray.scalar"] = scalar
    ARRAYS[f"{core}.numeric._frombuffer"] = from_buffer

TORCH_GLOBALS = {
    **ARRAYS,
    # mmengine's log of losses, whose methods are pickled as attributes of the class.
    "mmengine.logging.history_buffer.HistoryBuffer": Inert,
    "builtins.getattr": Inert,
    "otx.types.task.OTXTaskType": Inert,  # among the settings of a model of OpenVINO Training Extensions 2.6
}
PICKLE_GLOBALS = {
    **ARRAYS,
    "collections.OrderedDict": dict,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),  # bytes in Python 2
    "__builtin__.bytes": lambda: b"",  # empty bytes in Python 2
}


class ArrayUnpickler(pickle._Unpickler):
    """Unpickle numbers, strings, containers and numpy arrays; refuse everything else.

    Python's implementation is fast enough for a few hundred arrays. The one in C allocates memory for as many objects
    as the file announces. So does Python's for a bytearray, which is read as bytes here.
    """

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: pickle._Unpickler.load_binbytes8}

    def find_class(self, module, name):
        if f"{module}.{name}" not in PICKLE_GLOBALS:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return PICKLE_GLOBALS[f"{module}.{name}"]


def read_file(path, allow_pickle=False):
    """Read a checkpoint, a dict with tensors on the CPU; with `allow_pickle` also the plain data of a `.pkl` file.

    Raises:
        InputError: the file is missing, damaged, a pickle that is not allowed, compressed, or would run code.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise InputError(f"{path}: no such checkpoint")
    if not os.path.isfile(path):  # a pipe or a device may never end
        raise InputError(f"{path}: not a file, so no checkpoint")
    if path.endswith(".pkl") and not allow_pickle:
        raise InputError(
            f"{path}: a pickle, which can run code when it is read: not read; if you trust its origin, "
            "MODEL.ATSS.ALLOW_PICKLE True (--allow-pickle of atss convert) reads its numbers"
        )
    try:
        content = READERS.get(os.path.splitext(path)[1], load)(path)
    except InputError:
        raise
    except Exception as error:  # damaged files raise all kinds
        reason = f"truncated, or not a checkpoint ({type(error).__name__}: {shown(first_line(error))})"
        if foreign := re.search(r"GLOBAL (\S+)", str(error)):
            reason = f"holds {shown(foreign[1].rstrip('.'))} besides weights, which could run code: not read"
        raise InputError(f"{path}: {reason}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name, but a {type(content).__name__}")
    return content


def unpickle(path):
    with open(path, "rb") as file:
        data = file.read()
    if not data.endswith(pickle.STOP):
        raise EOFError("it lacks the end of a pickle")
    return ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()


def load(path):
    """Read a file in torch's format; raise an InputError for a zip file with more bytes than the file has."""
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise InputError(f"{path}: its records are compressed, which torch never does: not read")
            promised, size = sum(record.file_size for record in records), os.path.getsize(path)
            if promised > size:
                raise InputError(f"{path}: promises {promised} bytes in a file of {size}: not read")
    with torch.serialization.safe_globals([(value, name) for name, value in TORCH_GLOBALS.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def load_safetensors(path):
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{path}: the package safetensors reads it, which is not installed") from error
    return load_file(path)


# By the file's extension; torch's format has any.
READERS = {".pkl": unpickle, ".safetensors": load_safetensors}


def read_weights(path, allow_pickle=False):
    """Read a checkpoint's weights, float32 tensors by name without parallel training's prefix, and class names, or [].

    Raises:
        InputError: as in `read_file`; or there are no named weights, too many, or values that are not finite.
    """
    content = read_file(path, allow_pickle)
    weights = weights_in(content)
    arrays = {name: value for name, value in weights.items() if isinstance(value, (torch.Tensor, np.ndarray))}
    if not arrays or not all(isinstance(name, str) for name in arrays):
        raise InputError(f"{path}: holds no weights by name; its keys are {some(weights)}")
    prefix = "module." if all(name.startswith("module.") for name in arrays) else ""
    tensors, num_values = {}, 0
    for name, value in arrays.items():
        try:
            value = torch.as_tensor(value)
            plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
            if not plain or value.is_nested or value.is_meta or value.is_quantized or value.is_complex():
                raise TypeError(f"a {value.layout} tensor of {value.dtype} on {value.device}")
            # A strided tensor can have any size with a single value in the file.
            num_values += math.prod(value.shape)
            if num_values > MAX_NUMBERS:
                raise InputError(f"{path}: holds more than {MAX_NUMBERS} numbers, which no model here has")
            value = value.float()
            finite = value.isfinite().all()
        except (TypeError, RuntimeError, ValueError) as error:
            raise InputError(f"{path}: {shown(name)} is no plain tensor ({first_line(error)})") from error
        if not finite:
            raise InputError(f"{path}: {shown(name)} holds numbers that are not finite")
        tensors[name.removeprefix(prefix)] = value
    return tensors, class_names(content)


def weights_in(content):
    """The dict of weights in a checkpoint, which may be the checkpoint itself.

    OpenVINO Training Extensions 1.x wraps a checkpoint of mmdetection; its keys get the prefix that 2.x gives them.
    """
    for key in ("model", "state_dict", "blobs"):
        if isinstance(content.get(key), dict):
            wrapped = content[key].get("state_dict")
            if isinstance(wrapped, dict):
                return {f"model.{name}": value for name, value in wrapped.items()}
            return content[key]
    return content


# Where checkpoints have them: mmdetection 3.x and 2.x, OpenVINO Training Extensions 2.x and 1.x.
CLASS_NAMES = (
    ("meta", "dataset_meta", "classes"),
    ("meta", "dataset_meta", "CLASSES"),
    ("meta", "CLASSES"),
    ("hyper_parameters", "label_info", "label_names"),
    ("labels",),
)


def class_names(content):
    """Class names in a checkpoint, or []."""
    for keys in CLASS_NAMES:
        names = content
        for key in keys:
            names = names.get(key) if isinstance(names, dict) else None
        if names and isinstance(names, (list, tuple, dict)) and all(isinstance(name, str) for name in names):
            return list(names)
    return []


def shown(name):
    """A string from a file, for a message: short, on one line, without control characters."""
    return name if name.isprintable() and len(name) <= 200 else f"{name[:200]!r}"


def some(names):
    """The first three names, for a message; keys that are no strings are shown by their type."""
    names = [shown(name) if isinstance(name, str) else f"a {type(name).__name__}" for name in names]
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
