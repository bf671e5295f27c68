"""INPUT.AUGMENTATIONS: names of augmentations with arguments."""

import difflib
import inspect

from .effects import Blur, ColorJitter, Jpeg, Noise, Rotate
from .framing import ScaleJitter
from .mosaic import Mosaic

AUGMENTATIONS = {
    "color_jitter": ColorJitter,
    "scale_jitter": ScaleJitter,
    "rotate": Rotate,
    "blur": Blur,
    "noise": Noise,
    "jpeg": Jpeg,
    "mosaic": Mosaic,
}


def make_augmentations(entries, **context):
    """Make the augmentations of a list of entries: a dict from name to object, in order.

    Args:
        entries: each a name of AUGMENTATIONS, or [name, dict of arguments].
        context: values of other keys, for the classes that have a keyword-only argument of that name.

    Raises:
        ValueError: names the entry, and what is wrong with it.
    """
    made = {}
    for entry in entries:
        name, arguments = parts_of(entry)
        if name in made:
            raise ValueError(f"{name} is listed twice")
        parameters = inspect.signature(AUGMENTATIONS[name]).parameters.values()
        own = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        others = {p.name: context[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in context}
        for argument in arguments:
            if argument not in own:
                raise ValueError(
                    f"{name} has no argument {argument!r}{suggestion(argument, own)}, only {', '.join(own)}"
                )
        try:
            made[name] = AUGMENTATIONS[name](**arguments, **others)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return made


def parts_of(entry):
    """Name and arguments of an entry; raises ValueError."""
    name, arguments = (entry, {}) if isinstance(entry, str) else entry if is_pair(entry) else (None, None)
    if name is None:
        raise ValueError(f"expected a name or [name, {{arguments}}], got {entry!r}")
    if name not in AUGMENTATIONS:
        raise ValueError(f"there is no {name!r}{suggestion(name, AUGMENTATIONS)}, only {', '.join(AUGMENTATIONS)}")
    return name, arguments


def is_pair(entry):
    """Whether an entry is a name and arguments."""
    return isinstance(entry, (list, tuple)) and [type(part) for part in entry] == [str, dict]


def suggestion(name, names):
    """The most similar of some names, in words, if one is similar."""
    similar = difflib.get_close_matches(str(name), names, 1)
    return f" (did you mean {similar[0]!r}?)" if similar else ""
