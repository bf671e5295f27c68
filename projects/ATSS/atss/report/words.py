"""Numbers and counts as the page shows them."""

import math


def percent(value):
    """A share from 0 to 1 as "12.3", a dash for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def share(value):
    """A share from 0 to 1 as "0.123", a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def counted(number, what, plural=None):
    """ "1 image", "1,200 images"."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def omitted(errors):
    """A line about images that cannot be read, given their errors; empty for none."""
    return f"{counted(len(errors), 'image')} omitted: {errors[0]}." if errors else ""


def duration(seconds):
    """ "40 s", "95 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
