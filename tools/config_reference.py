#!/usr/bin/env python
"""Write docs/config.md from the comments in atss/config/defaults.py; with --check, check that it is current."""

import argparse
import ast
import inspect
import json
import math
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import atss  # noqa: F401  (before Detectron2, whose deprecation warnings it silences)

# isort: split
from detectron2.config import get_cfg

from atss import add_atss_config
from atss.config.yaml_file import flat
from atss.errors import InputError, one_line_errors

ROOT = Path(__file__).resolve().parent.parent
INTRODUCTION = """\
# Config keys

What the project adds to [Detectron2's keys](https://detectron2.readthedocs.io/en/latest/modules/config.html#yaml-config-references).
They stand in yaml files (`configs/` has examples), and as pairs of key and value at the end of a command:
`MODEL.ATSS.TOPK 15`.

`python tools/config_reference.py` writes this page from [defaults.py](../projects/ATSS/atss/config/defaults.py).
"""
ABSENT = object()


class Entry(NamedTuple):
    """A comment and the names, with all nodes, of what is assigned under it."""

    comment: str
    names: list


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is not current")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/config.md", metavar="FILE", help="the page")
    return parser


def main(args):
    page = reference(add_atss_config)
    if not args.check:
        args.output.write_text(page, encoding="utf-8")
    elif not args.output.is_file() or args.output.read_text(encoding="utf-8") != page:
        raise InputError(f"{args.output}: not current; python tools/config_reference.py writes it anew")


def reference(add_config):
    """The page, in Markdown.

    Args:
        add_config: function that adds keys to a config, by assignments to attributes of its argument or of names for
            nodes; comments stand above them, empty lines between groups.

    Raises:
        InputError: it sets a key in another way.
    """
    cfg = get_cfg()
    before = dict(flat(cfg))
    add_config(cfg)
    defaults = dict(flat(cfg))
    groups = read_groups(textwrap.dedent(inspect.getsource(add_config)))
    found = {name for group in groups for entry in group for name in entry.names}
    for key, value in defaults.items():
        if key not in found and before.get(key, ABSENT) != value:
            raise InputError(f"{inspect.getsourcefile(add_config)}: {key} must be set by an assignment of its own")
    return "\n".join([INTRODUCTION, *(section(group, defaults) for group in groups)])


def read_groups(source):
    """The groups of a function's assignments: a list of `Entry` each."""
    (function,) = ast.parse(source).body
    statements = {statement.lineno: statement for statement in function.body}
    nodes = {function.args.args[0].arg: ""}
    groups, comment, number = [[]], [], function.body[0].lineno
    lines = source.splitlines()
    while number <= len(lines):
        line, statement = lines[number - 1].strip(), statements.get(number)
        if line.startswith("#"):
            comment.append(line.lstrip("# "))
        elif isinstance(statement, ast.Assign):
            if comment or not groups[-1]:
                groups[-1].append(Entry(" ".join(comment), []))
            groups[-1][-1].names.extend(assigned(statement, nodes))
            comment = []
        elif not line:
            if comment:  # above nothing
                groups[-1].append(Entry(" ".join(comment), []))
            groups.append([])
            comment = []
        number = statement.end_lineno + 1 if statement else number + 1
    return [group for group in groups if any(entry.comment for entry in group)]


def assigned(statement, nodes):
    """Dotted names that a statement assigns to; `nodes`, from name to dotted prefix, gets the nodes that it names."""
    names = [dotted(target, nodes) for target in statement.targets if isinstance(target, ast.Attribute)]
    meant = names[0] if names else dotted(statement.value, nodes)
    nodes.update({target.id: f"{meant}." for target in statement.targets if isinstance(target, ast.Name) and meant})
    return [name for name in names if name]


def dotted(expression, nodes):
    """Name with all nodes of an attribute of a node, such as MODEL.ATSS.TOPK; None of anything else."""
    parts = []
    while isinstance(expression, ast.Attribute):
        parts.insert(0, expression.attr)
        expression = expression.value
    if parts and isinstance(expression, ast.Name) and expression.id in nodes:
        return nodes[expression.id] + ".".join(parts)
    return None


def section(group, defaults):
    """A group as Markdown: what its first comment begins with as heading, then a table, a row a comment."""
    heading = re.split(r"[,:;(]|\.(?:\s|$)", group[0].comment)[0].strip()
    rows = ["| key | type | default | |", "| --- | --- | --- | --- |"]
    for entry in group:
        keys = [name for name in entry.names if name in defaults]
        values = [defaults[key] for key in keys]
        cells = [keys, [type(value).__name__ for value in values], map(literal, values)]
        columns = ["<br>".join(f"`{text}`" for text in cell) for cell in cells]
        rows.append(f"| {' | '.join(columns)} | {escape(entry.comment)} |")
    return "\n".join([f"## {escape(heading)}\n", *rows, ""])


def literal(value):
    """A value as it is written in yaml files and, numbers without end apart, on the command line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def escape(text):
    """Text that Markdown shows as it is, in a cell of a table."""
    return re.sub(r"([\\|*<])", r"\\\1", text)


if __name__ == "__main__":
    with one_line_errors():
        main(get_parser().parse_args())
