"""What can be wrong with a dataset, as lines for its owner."""

from typing import NamedTuple

from ..errors import InputError

# Examples that are kept of a problem.
MAX_EXAMPLES = 5


class Problem(NamedTuple):
    """Something about a dataset that its owner should know.

    severity: "error", training refuses it; "warning", it probably costs accuracy; "note", it may be meant.
    kind: what it is, such as "missing images".
    count, total, things: how many of how many things, such as 3 of 205 "images".
    examples: the first MAX_EXAMPLES, a line each.
    remedy: what to do.
    where: the dataset, or the datasets, that have it; "" where that is clear.
    """

    severity: str
    kind: str
    count: int
    total: int
    things: str
    examples: list
    remedy: str
    where: str = ""

    def extent(self):
        """How many of how many, as a text."""
        return f"{self.count:,} of {self.total:,} {self.things}"

    def line(self):
        """All of it in one line, with one example."""
        return f"{self.where}: {self.kind} ({self.extent()}), such as {self.examples[0]}; {self.remedy}"


def problems_of(severity, kind, found, total, things, remedy, describe=str):
    """A list with the `Problem` of what was found, empty where that is nothing.

    Args:
        found: sequence.
        describe: from an element of `found` to an example.
        others: as of `Problem`.
    """
    if not len(found):
        return []
    return [Problem(severity, kind, len(found), total, things, [describe(x) for x in found[:MAX_EXAMPLES]], remedy)]


def located(where, problems):
    """The problems, with the dataset or datasets that have them."""
    return [problem._replace(where=where) for problem in problems]


def errors_of(problems):
    """Those that training refuses."""
    return [problem for problem in problems if problem.severity == "error"]


def refuse_errors(source, problems):
    """Stop at the first error, in one line.

    Args:
        source: the `Source` that has them.
        problems: list of `Problem`.

    Raises:
        InputError: there is an error.
    """
    errors = errors_of(problems)
    if not errors:
        return
    first, *others = errors
    tool = f"python tools/check_dataset.py {source.folder or '--config-file ...'}"
    more = f", and {len(others)} more kinds of errors" if others else ""
    raise InputError(
        f"{source.path}: {first.examples[0]} ({first.extent()}{more}); {first.remedy}; `{tool}` lists everything"
    )
