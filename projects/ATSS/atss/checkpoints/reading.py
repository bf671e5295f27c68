"""Reading of weights from files of any origin, without running code that they may hold."""

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

# Ten times as many as the largest model has.
MAX_NUMBERS = 10**9
ZIP_START = b"PK\x03\x04"
# Numbers: floats, integers, with and without sign, booleans.
NUMBER = re.compile("[fiub][1248]")


class Inert:
    """Stands in for what another framework keeps in a checkpoint besides weights, and does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


# Of mmengine's log of losses. Its methods are pickled as attributes of the class.
INERT = ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr")


class DType:
    """Stands in for a pickled numpy dtype: that of a number, and its order of bytes.

    numpy's own takes any state from a file: fields at any offset, objects.
    """

    def __new__(cls, code="", *others):
        found = super().__new__(cls)
        found.code, found.order = code, "<"
        return found

    def __setstate__(self, state):
        self.order = state[1]

    def numpy(self):
        if not isinstance(self.code, str) or not NUMBER.fullmatch(self.code) or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("an array of other things than numbers")
        return np.dtype(self.order + self.code)


class Array(np.ndarray):
    """A pickled numpy array, which takes numbers alone, as many as the file has."""

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
    """Bytes, which are a text where Python 2 pickled them."""
    return data if isinstance(data, bytes) else data.encode("latin1")


# What pickled numpy arrays are made of, under the names of numpy 1 and 2.
ARRAYS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): DType,
}


class Bounded:
    """A file of which no more bytes are asked for than it has: room for them is made before they are read."""

    def __init__(self, file):
        self.file, self.size = file, os.fstat(file.fileno()).st_size

    def read(self, size):
        return self.file.read(min(size, self.size))

    def readline(self):
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a name")
        return line


class ArrayUnpickler(pickle._Unpickler):
    """Reads numbers, texts, containers and numpy arrays, and refuses everything else.

    It is the one in Python, which is fast enough for a few hundred arrays: the one in C makes room for as many objects
    as a file says it will refer to.
    """

    def find_class(self, module, name):
        if (module, name) in ARRAYS:
            return ARRAYS[module, name]
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 2 pickled them
            return lambda text, encoding: text.encode("latin1")
        if (module, name) == ("__builtin__", "bytes"):  # those without any
            return lambda: b""
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def load_bytearray8(self):
        # Python's own makes room for as many bytes as a file says it has before it reads them.
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}


def read_file(path, allow_pickle=False):
    """What a checkpoint holds, with tensors on the CPU; `.pkl` files are pickled arrays, all others torch's.

    Args:
        path: of the file.
        allow_pickle: True to read `.pkl` files, too, of which numbers, texts, containers and arrays are taken.

    Raises:
        InputError: the file is missing, damaged, a pickle that is not allowed, larger than it looks, or would run code.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise InputError(f"{path}: no such checkpoint")
    if not os.path.isfile(path):  # reading a pipe would wait, a device never end
        raise InputError(f"{path}: not a file, so no checkpoint")
    if path.endswith(".pkl") and not allow_pickle:
        raise InputError(
            f"{path}: a pickle, which can run code when it is read: not read; if you trust its origin, "
            "MODEL.ATSS.ALLOW_PICKLE True (--allow-pickle of "
            "tools/convert_checkpoint.py) reads its numbers"
        )
    try:
        if path.endswith(".pkl"):
            with open(path, "rb") as file:
                return ArrayUnpickler(Bounded(file), encoding="latin1").load()
        refuse_bomb(path)
        arrays = [(what, f"{module}.{name}") for (module, name), what in ARRAYS.items()]
        inert = [(Inert, name) for name in INERT]
        with torch.serialization.safe_globals([*arrays, *inert]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader raise
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            raise InputError(
                f"{path}: holds {shown(foreign[1].rstrip('.'))} besides weights, which could run code: not read"
            ) from error
        raise InputError(
            f"{path}: truncated, or not a checkpoint ({type(error).__name__}: {shown(first_line(error))})"
        ) from error


def refuse_bomb(path):
    """Check that a zip file, which torch writes without compression, holds no more bytes than it has.

    Raises:
        InputError: it holds more, or says so.
        zipfile.BadZipFile and others: it is damaged.
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
    """The weights of a checkpoint and what it says of their classes.

    Args:
        path, allow_pickle: as for `read_file`.

    Returns:
        dict from name to float32 tensor, without the prefix that parallel training adds; list of names of the classes,
        empty where the file has none.

    Raises:
        InputError: as `read_file`; or there are no weights by name, or some that no model has.
    """
    content = read_file(path, allow_pickle)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name, but a {type(content).__name__}")
    weights = weights_in(content)
    arrays = {name: value for name, value in weights.items() if isinstance(value, (torch.Tensor, np.ndarray))}
    if not arrays or not all(isinstance(name, str) for name in arrays):
        raise InputError(f"{path}: holds no weights by name; its keys are {some(weights)}")
    plain = {name: as_plain(path, name, value) for name, value in arrays.items()}
    # A file can spread one number over a tensor of any size.
    if sum(math.prod(value.shape) for value in plain.values()) > MAX_NUMBERS:
        raise InputError(f"{path}: holds more than {MAX_NUMBERS} numbers, which no model here has")
    tensors = {name: as_finite(path, name, value) for name, value in plain.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors, class_names(content.get("meta"))


def weights_in(content):
    """The dict of weights in what a checkpoint holds, which may be that dict itself."""
    places = [content.get(key) for key in ("model", "state_dict", "blobs")]
    return next((place for place in places if isinstance(place, dict)), content)


def as_plain(path, name, value):
    """A tensor or array of a file as a dense tensor of numbers."""
    try:
        value = torch.as_tensor(value)
        plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
        if not plain or value.is_nested or value.is_meta or value.is_quantized or value.is_complex():
            raise TypeError(f"a {value.layout} tensor of {value.dtype} on {value.device}")
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {shown(name)} is no plain tensor ({first_line(error)})") from error
    return value


def as_finite(path, name, value):
    """A dense tensor of numbers as float32; they must be finite."""
    try:
        value = value.float()
        finite = value.isfinite().all()
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {shown(name)} is no plain tensor ({first_line(error)})") from error
    if not finite:
        raise InputError(f"{path}: {shown(name)} holds numbers that are not finite")
    return value


def class_names(meta):
    """Names of the classes from what mmdetection notes about a checkpoint: 2.x as CLASSES, 3.x as dataset_meta."""
    if not isinstance(meta, dict):
        return []
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, dict) else meta.get("CLASSES")
    good = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(names) if good else []


def shown(name):
    """A text of a file for a message: one line, not too long, and nothing that a terminal obeys."""
    return name if name.isprintable() and len(name) <= 200 else f"{name[:200]!r}"


def some(names):
    """The first names, for people; keys of a file that are no texts go by their type."""
    names = [shown(name) if isinstance(name, str) else f"a {type(name).__name__}" for name in names]
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
