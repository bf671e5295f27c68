"""Merge yaml files and command line values into a config; both may come from anywhere."""

import difflib
import os
from collections.abc import Iterator

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from ..errors import InputError, first_line

# Maximum bytes of a config file, and maximum characters after its aliases are expanded.
MAX_CONFIG = 1 << 20
# Maximum characters of one value: the time to parse some numbers grows with the square.
MAX_VALUE = 100_000
# Maximum number of base configs.
MAX_BASES = 20
# Exceptions that yaml, yacs and Python raise for arbitrary values and files.
UNUSABLE = (
    LookupError, ValueError, ArithmeticError, AssertionError, AttributeError, OSError, TypeError, RecursionError,
    MemoryError,
)  # fmt: skip


def merge(cfg: CfgNode, config_file: str, opts: list[str]) -> None:
    """Merge a yaml file, then alternating keys and values, into a config.

    Raises:
        InputError: a file, key or value that cannot be used.
    """
    if not config_file:
        raise InputError("--config-file is missing; see configs/ for the ones that come with the project")
    if not os.path.isfile(config_file):
        raise InputError(f"{config_file}: no such config file")
    _check_file(config_file)
    types = {key: type(value) for key, value in flat(cfg)}
    try:
        cfg.merge_from_file(config_file, allow_unsafe=False)
    except UNUSABLE as error:
        raise InputError(f"{config_file}: {_reason(error)}") from error
    if len(opts) % 2:
        raise InputError(f"{short(' '.join(opts))}: keys and values must come in pairs")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except UNUSABLE as error:
            similar = [] if key in types else difflib.get_close_matches(key, types, 1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise InputError(f"{short(f'{key} {value}')}: {_reason(error)}{hint}") from error
    for key, value in flat(cfg):
        # yacs accepts None for any value, and any value for None.
        if types.get(key, type(None)) not in (type(None), type(value)):
            raise InputError(f"{key}: expected a value of type {types[key].__name__}, got {type(value).__name__}")


def flat(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every dotted key of a config with its value."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def given_with(key: str, config_file: str, opts: list[str]) -> set[str]:
    """The dotted keys that are given where `key` is, and after it: values that belong to its value.

    A config file comes after its bases, and `opts`, alternating keys and values, come last. The files are those that
    `merge` has accepted.
    """
    given = set(opts[::2])
    for path in reversed(_with_bases(config_file)):
        if key in given:
            break
        with open(PathManager.get_local_path(path), "rb") as file:
            given |= {name for name, _ in flat(CfgNode(yaml.safe_load(file)))}
    return given


def _with_bases(path):
    """Paths of a config file and of its bases, in the order in which they are merged."""
    bases = [_beside(path, base) for base in _bases(PathManager.get_local_path(path))]
    return [*(file for base in bases for file in _with_bases(base)), path]


def _beside(path, base):
    """Path of a base that a config file names."""
    base = os.path.expanduser(base)
    whole = base.startswith(("/", "http://", "https://"))
    return base if whole else os.path.join(os.path.dirname(path), base)


def _check_file(path, above=()):
    """Raise an InputError unless a config file and its bases are small and hold nothing but plain values.

    `path` may be a URL that Detectron2 supports; `above` are the paths of the configs that have it as base.
    """
    through = f"{above[-1]}: {BASE_KEY} " if above else ""
    if path in above or len(above) > MAX_BASES:
        raise InputError(f"{through}{path}: builds on itself, or on more than {MAX_BASES} files")
    try:
        bases = _bases(PathManager.get_local_path(path))
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        reason = getattr(error, "problem", None) or first_line(error)
        raise InputError(f"{through}{path}{line}: not a plain yaml file: {reason}") from error
    except UNUSABLE as error:
        raise InputError(f"{through}{path}: {_reason(error)}") from error
    for base in bases:
        _check_file(_beside(path, base), (*above, path))


def _bases(path):
    """Names of the base configs of a config file; raises yaml.YAMLError or one of `UNUSABLE`."""
    if not os.path.isfile(path):  # a pipe or a device may never end
        raise ValueError("no such config file")
    with open(path, "rb") as file:
        text = file.read(MAX_CONFIG + 1)
    if len(text) > MAX_CONFIG:
        raise ValueError(f"more than the {MAX_CONFIG} bytes that a config may have")
    node = yaml.compose(text.decode("utf-8"), Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("not a config: it holds no keys with values")
    if _extent(node, {}) > MAX_CONFIG:
        raise ValueError(f"its aliases make more than {MAX_CONFIG} characters of it")
    bases = yaml.SafeLoader("").construct_document(node).get(BASE_KEY, [])
    bases = bases if isinstance(bases, list) else [bases]
    if len(bases) > MAX_BASES or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{BASE_KEY} must name files, {MAX_BASES} at most")
    return bases


def _extent(node, known):
    """Number of characters of a yaml node with its aliases expanded; `known` has those counted by their id.

    Raises:
        ValueError: a node is part of itself, or a value is too long.
    """
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > MAX_VALUE:
            raise ValueError(f"a value of more than {MAX_VALUE} characters")
        return 1 + len(node.value)
    if id(node) not in known:
        known[id(node)] = None
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_extent(part, known) for part in parts)
    if known[id(node)] is None:
        raise ValueError("a value that is part of itself")
    return known[id(node)]


def _reason(error):
    # str() of a KeyError is its text in quotes.
    return short(first_line(error.args[0] if isinstance(error, KeyError) and error.args else error))


def short(text: str) -> str:
    """The first 300 characters of a text, on one line."""
    line = " ".join(text.splitlines())
    return line if len(line) <= 300 else f"{line[:300]}..."
