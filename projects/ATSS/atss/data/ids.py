"""Ids that are not as COCO's: texts or fractions for images and categories, repeated ones for annotations."""

import re

from .problems import SHORT, problems_of

INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")
# What refers to the entries of a list.
REFERENCES = {"images": "image_id", "categories": "category_id"}


def is_integer(value):
    return type(value) is int and abs(value) < 1 << 63


def unified(value):
    """The integer that an id stands for, 3 for "3" and 3.0; other values as they are, and texts of larger integers."""
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and INTEGER.fullmatch(value) and is_integer(int(value)):
        return int(value)
    return value


def numbered(content):
    """Give integers as ids to the entries of a valid content.

    Images whose ids are not all integers are numbered from 0 in their order; so are categories. Annotations whose ids
    are not all different integers are numbered from 1.

    Returns the content, with changed copies of entries, and a list of `Problem`. If ids of images or categories are
    texts, its "own_ids" is a dict from "image_id" or "category_id" to a dict from the number to the id in the file.
    """
    content, own_ids, problems = dict(content), {}, []
    for key, reference in REFERENCES.items():
        entries, annotations = content[key], content["annotations"]
        given = [entry["id"] for entry in entries]
        used = given + [annotation[reference] for annotation in annotations]
        others = [own for own in used if type(own) is not int]
        problems += problems_of(f"ids of {key} that are no integers", others, len(used), SHORT.repr)
        if not others:
            continue
        ids = list(map(unified, given))
        numbers = dict(zip(ids, ids if set(map(type, ids)) == {int} else range(len(ids)), strict=True))
        content[key] = [{**entry, "id": numbers[own]} for entry, own in zip(entries, ids, strict=True)]
        content["annotations"] = [{**a, reference: numbers[unified(a[reference])]} for a in annotations]
        if str in map(type, given):
            own_ids[reference] = dict(zip(numbers.values(), given, strict=True))
    given, seen = [annotation.get("id") for annotation in content["annotations"]], set()
    ids = list(map(unified, given))
    # `set.add` returns None.
    others = [
        i for i, own in enumerate(ids) if not (is_integer(own) or type(own) is str) or own in seen or seen.add(own)
    ]
    texts = [own for own in given if type(own) is str]
    if others or list(map(type, given)).count(int) < len(given):
        content["annotations"] = [{**a, "id": number} for number, a in enumerate(content["annotations"], 1)]
    lines = [f"annotations[{i}]: id {SHORT.repr(given[i])}" for i in others]
    problems += problems_of("ids of annotations that are texts", texts, len(given), SHORT.repr)
    problems += problems_of("annotations without an id of their own", lines, len(given))
    return {**content, "own_ids": own_ids} if own_ids else content, problems


def translated(results, ids):
    """Results in COCO's format with other ids: a dict as "own_ids" of `numbered` maps the old ones to the new ones."""
    if not ids:
        return results
    return [{**r, **{name: known.get(r[name], r[name]) for name, known in ids.items()}} for r in results]
