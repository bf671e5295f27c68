"""Reading of weights from files of any origin, without running code that they may hold."""

import pickle
import re

import numpy as np
import torch

from ..errors import InputError, first_line

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
        dict from name to float tensor, without the prefix that parallel training adds; list of names of the classes,
        empty where the file has none.

    Raises:
        InputError: as `read_file`; or there are no weights by name.
    """
    content = read_file(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no weights by name, but a {type(content).__name__}")
    places = [content.get(key) for key in ("model", "state_dict", "blobs")]
    weights = next((place for place in places if isinstance(place, dict)), content)
    tensors = {str(name): as_tensor(value) for name, value in weights.items() if is_number_array(value)}
    if not tensors:
        raise InputError(f"{path}: holds no weights by name; its keys are {some(weights)}")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors, class_names(content.get("meta"))


def is_number_array(value):
    return isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu")


def as_tensor(value):
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(value)


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
