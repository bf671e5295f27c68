"""Read weights from untrusted files without running code."""

import io
import math
import os
import pickle
import re
import struct
import zipfile
from typing import ClassVar

import numpy as np
import torch

from ..errors import InputError, first_line

# Maximum number of values in a checkpoint: ten times as many as the largest model has.
MAX_NUMBERS = 10**9
ZIP_START = b"PK\x03\x04"
# dtype codes of floats, signed and unsigned integers, and booleans.
NUMBER = re.compile("[fiub][1248]")


class Inert:
    """Placeholder for objects that another framework stores next to the weights."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


# mmengine's log of losses. Its methods are pickled as attributes of the class.
INERT = ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr")


class DType:
    """Placeholder for a pickled numpy dtype, restricted to numbers.

    numpy's own `__setstate__` accepts any state from a file: fields at any offset, objects.
    """

    def __new__(cls, code="", *others):
        found = super().__new__(cls)
        found.code, found.order = code, "<"
        return found

    def __setstate__(self, state):
        self.order = state[1]

    def numpy(self):
        if not isinstance(self.code, str) or not NUMBER.fullmatch(self.code) or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("an array of something other than numbers")
        return np.dtype(self.order + self.code)


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


# The parts of pickled numpy arrays, under their names in numpy 1 and 2.
ARRAYS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DType,
}


class PickleBytes(io.BytesIO):
    """The bytes of a pickle, in which a truncated name is an error."""

    def readline(self):
        line = super().readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a name")
        return line


class ArrayUnpickler(pickle._Unpickler):
    """Unpickle numbers, strings, containers and numpy arrays; refuse everything else.

    Python's implementation is fast enough for a few hundred arrays. The one in C allocates memory for as many objects
    as the file announces.
    """

    def find_class(self, module, name):
        if (module, name) in ARRAYS:
            return ARRAYS[module, name]
        if (module, name) == ("_codecs", "encode"):  # bytes in Python 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) == ("__builtin__", "bytes"):  # empty bytes in Python 2
            return lambda: b""
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def load_bytearray8(self):
        # The standard one allocates as many bytes as the file announces.
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}


def read_file(path, allow_pickle=False):
    """Read a checkpoint, with tensors on the CPU: pickled arrays from `.pkl` files, torch's format from all others.

    Args:
        path: path of the file.
        allow_pickle: True to also read `.pkl` files, restricted to numbers, strings, containers and arrays.

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
            "MODEL.ATSS.ALLOW_PICKLE True (--allow-pickle of tools/convert_checkpoint.py) reads its numbers"
        )
    try:
        if path.endswith(".pkl"):
            with open(path, "rb") as file:
                return ArrayUnpickler(PickleBytes(file.read()), encoding="latin1").load()
        refuse_bomb(path)
        arrays = [(what, f"{module}.{name}") for (module, name), what in ARRAYS.items()]
        inert = [(Inert, name) for name in INERT]
        with torch.serialization.safe_globals([*arrays, *inert]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # damaged files raise all kinds
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            raise InputError(
                f"{path}: holds {shown(foreign[1].rstrip('.'))} besides weights, which could run code: not read"
            ) from error
        raise InputError(
            f"{path}: truncated, or not a checkpoint ({type(error).__name__}: {shown(first_line(error))})"
        ) from error


def refuse_bomb(path):
    """Raise an InputError for a zip file with compressed records, or with records larger than the file.

    torch writes records without compression. A damaged file raises zipfile.BadZipFile and others.
    """
    with open(path, "rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise InputError(f"{path}: its records are compressed, which torch never does: not read")
    promised, size = sum(record.file_size for record in records), os.path.getsize(path)
    if promised > size:
        raise InputError(f"{path}: promises {promised} bytes in a file of {size}: not read")


def read_weights(path, allow_pickle=False):
    """Read the weights of a checkpoint and, if it has them, the class names.

    Args:
        path, allow_pickle: as in `read_file`.

    Returns:
        dict from name to float32 tensor, without the prefix of parallel training; list of class names, or [].

    Raises:
        InputError: as in `read_file`; or there are no named weights, too many, or values that are not finite.
    """
    content = read_file(path, allow_pickle)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name, but a {type(content).__name__}")
    weights = weights_in(content)
    arrays = {name: value for name, value in weights.items() if isinstance(value, (torch.Tensor, np.ndarray))}
    if not arrays or not all(isinstance(name, str) for name in arrays):
        raise InputError(f"{path}: holds no weights by name; its keys are {some(weights)}")
    plain = {name: as_plain(path, name, value) for name, value in arrays.items()}
    # A strided tensor can have any size with a single value in the file.
    if sum(math.prod(value.shape) for value in plain.values()) > MAX_NUMBERS:
        raise InputError(f"{path}: holds more than {MAX_NUMBERS} numbers, which no model here has")
    tensors = {name: as_finite(path, name, value) for name, value in plain.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors, class_names(content.get("meta"))


def weights_in(content):
    """The dict of weights in a checkpoint, which may be the checkpoint itself."""
    for key in ("model", "state_dict", "blobs"):
        if isinstance(content.get(key), dict):
            return content[key]
    return content


def as_plain(path, name, value):
    """Convert a tensor or array to a dense tensor of real numbers."""
    try:
        value = torch.as_tensor(value)
        plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
        if not plain or value.is_nested or value.is_meta or value.is_quantized or value.is_complex():
            raise TypeError(f"a {value.layout} tensor of {value.dtype} on {value.device}")
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {shown(name)} is no plain tensor ({first_line(error)})") from error
    return value


def as_finite(path, name, value):
    """Convert a dense tensor to float32, and check that it is finite."""
    try:
        value = value.float()
        finite = value.isfinite().all()
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {shown(name)} is no plain tensor ({first_line(error)})") from error
    if not finite:
        raise InputError(f"{path}: {shown(name)} holds numbers that are not finite")
    return value


def class_names(meta):
    """Class names in the metadata of mmdetection: CLASSES in 2.x, dataset_meta in 3.x."""
    if not isinstance(meta, dict):
        return []
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, dict) else meta.get("CLASSES")
    good = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(names) if good else []


def shown(name):
    """A string from a file, for a message: short, on one line, without control characters."""
    return name if name.isprintable() and len(name) <= 200 else f"{name[:200]!r}"


def some(names):
    """The first three names, for a message; keys that are no strings are shown by their type."""
    names = [shown(name) if isinstance(name, str) else f"a {type(name).__name__}" for name in names]
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
