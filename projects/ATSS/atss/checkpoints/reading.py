"""Reading of weights from files of any origin, without running code that they may hold."""

import math
import pickle
import re

import numpy as np
import torch

from ..errors import InputError, first_line

# A hundred times as many as the largest model has.
MAX_NUMBERS = 10**10

# What pickled numpy arrays are made of, under the names of numpy 1 and 2.
ARRAYS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np._core.multiarray._reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): np._core.multiarray.scalar for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class Inert:
    """Stands in for what another framework keeps in a checkpoint besides weights, and does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


# Of mmengine's log of losses. Its methods are pickled as attributes of the class.
INERT = ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr")


class ArrayUnpickler(pickle.Unpickler):
    """Reads numbers, texts, containers and numpy arrays, and refuses everything else."""

    def find_class(self, module, name):
        if (module, name) in ARRAYS:
            return ARRAYS[module, name]
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 2 pickled them
            return lambda text, encoding: text.encode("latin1")
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def read_file(path):
    """What a checkpoint holds, with tensors on the CPU; `.pkl` files are pickled arrays, all others torch's.

    Raises:
        InputError: the file is missing, damaged, or would run code.
    """
    try:
        if str(path).endswith(".pkl"):
            with open(path, "rb") as file:
                return ArrayUnpickler(file, encoding="latin1").load()
        numpy_globals = [(what, f"{module}.{name}") for (module, name), what in ARRAYS.items()]
        dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
        inert = [(Inert, name) for name in INERT]
        with torch.serialization.safe_globals([*numpy_globals, *dtypes, *inert]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint") from error
    except Exception as error:  # whatever a damaged file makes a reader raise
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign:
            raise InputError(
                f"{path}: holds {foreign[1].rstrip('.')} besides weights, which could run code: not read"
            ) from error
        raise InputError(
            f"{path}: truncated, or not a checkpoint ({type(error).__name__}: {first_line(error)})"
        ) from error


def read_weights(path):
    """The weights of a checkpoint and what it says of their classes.

    Returns:
        dict from name to float32 tensor, without the prefix that parallel training adds; list of names of the classes,
        empty where the file has none.

    Raises:
        InputError: as `read_file`; or there are no weights by name, or some that no model has.
    """
    content = read_file(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name, but a {type(content).__name__}")
    weights = weights_in(content)
    arrays = {name: value for name, value in weights.items() if isinstance(value, (torch.Tensor, np.ndarray))}
    if not arrays or not all(isinstance(name, str) for name in arrays):
        raise InputError(f"{path}: holds no weights by name; its keys are {some(weights)}")
    if sum(math.prod(value.shape) for value in arrays.values()) > MAX_NUMBERS:
        raise InputError(f"{path}: holds more than {MAX_NUMBERS} numbers, which no detector has")
    tensors = {name: as_tensor(path, name, value) for name, value in arrays.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors, class_names(content.get("meta"))


def weights_in(content):
    """The dict of weights in what a checkpoint holds, which may be that dict itself."""
    places = [content.get(key) for key in ("model", "state_dict", "blobs")]
    return next((place for place in places if isinstance(place, dict)), content)


def as_tensor(path, name, value):
    """A tensor or array of a file as a dense float32 tensor of finite numbers."""
    try:
        value = torch.as_tensor(value)
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
            raise TypeError(f"a {value.layout} tensor of {value.dtype} on {value.device}")
        value = value.float()
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {name} is no plain tensor ({first_line(error)})") from error
    if not value.isfinite().all():
        raise InputError(f"{path}: {name} holds numbers that are not finite")
    return value


def class_names(meta):
    """Names of the classes from what mmdetection notes about a checkpoint: 2.x as CLASSES, 3.x as dataset_meta."""
    if not isinstance(meta, dict):
        return []
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, dict) else meta.get("CLASSES")
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else []


def some(names):
    names = [str(name) for name in names]
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "")
