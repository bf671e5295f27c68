"""Checks of the arguments of augmentations."""


def number(name, value, low, high, kind=float):
    """A number of a kind (float or int) from `low` to `high`; raises ValueError that names the argument."""
    allowed = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        what = "an integer" if kind is int else "a number"
        raise ValueError(f"{name}: expected {what} from {low} to {high}, got {value!r}")
    return kind(value)


def pair(name, value, low, high, kind=float):
    """A tuple of two such numbers."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{name}: expected two numbers from {low} to {high}, got {value!r}")
    return tuple(number(name, each, low, high, kind) for each in value)


def interval(name, value, low, high, kind=float):
    """A pair (from, to) of such numbers, the smaller one first."""
    ends = pair(name, value, low, high, kind)
    if ends[0] > ends[1]:
        raise ValueError(f"{name}: expected [from, to], the smaller number first, got {value!r}")
    return ends
