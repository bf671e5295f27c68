"""INPUT.AUGMENTATIONS is checked when the config is read."""

import inspect
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atss.config import load_config
from atss.data.augmentations.registry import AUGMENTATIONS, make_augmentations
from atss.errors import InputError
from tests.helpers import DEMO_CONFIG, ROOT


@pytest.mark.parametrize(
    "entries, message",
    [
        (
            ["rotat"],
            "there is no 'rotat' (did you mean 'rotate'?), only color_jitter, scale_jitter, rotate, blur, noise",
        ),
        (["cutout"], "there is no 'cutout', only color_jitter"),
        ([["rotate", {"degree": 5}]], "rotate has no argument 'degree' (did you mean 'degrees'?), only degrees, p"),
        ([["rotate", {"fill": 5}]], "rotate has no argument 'fill', only degrees, p"),
        ([["rotate", {"degrees": 31}]], "rotate: degrees: expected a number from 0 to 30, got 31"),
        ([["rotate", {"degrees": float("nan")}]], "rotate: degrees: expected a number from 0 to 30, got nan"),
        ([["rotate", {"p": True}]], "rotate: p: expected a number from 0 to 1, got True"),
        ([["blur", {"sigma": 2}]], "blur: sigma: expected two numbers from 0.1 to 10, got 2"),
        ([["blur", {"sigma": [2, 1]}]], "blur: sigma: expected [from, to], the smaller number first, got [2, 1]"),
        ([["noise", {"sigma": [0, 25]}]], "noise: sigma: expected a number from 0 to 0.15, got 25"),
        ([["jpeg", {"quality": [0, 90]}]], "jpeg: quality: expected an integer from 1 to 100, got 0"),
        ([["jpeg", {"quality": [10, 90.0]}]], "jpeg: quality: expected an integer from 1 to 100, got 90.0"),
        ([["color_jitter", {"hue": 0.6}]], "color_jitter: hue: expected a number from 0 to 0.5, got 0.6"),
        ([["scale_jitter", {"scale": [0, 2]}]], "scale_jitter: scale: expected a number from 0.05 to 5, got 0"),
        ([["scale_jitter", {"size": 640}]], "scale_jitter: size: expected two numbers from 1 to 8192, got 640"),
        ([["mosaic", {"p": "1"}]], "mosaic: p: expected a number from 0 to 1, got '1'"),
        (["blur", ["blur", {}]], "blur is listed twice"),
        ([{"rotate": {"degrees": 5}}], "expected a name or [name, {arguments}], got {'rotate': {'degrees': 5}}"),
        ([["rotate", 5]], "expected a name or [name, {arguments}], got ['rotate', 5]"),
    ],
)
def test_what_is_wrong_is_named(entries, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_augmentations(entries)


VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ARGUMENTS = st.dictionaries(st.sampled_from(["p", "scale", "sigma", "size", 0]), VALUE | st.lists(VALUE, max_size=2))
NAME = st.sampled_from(list(AUGMENTATIONS))


@settings(max_examples=100)
@given(st.lists(NAME | VALUE | st.lists(NAME | VALUE | ARGUMENTS, max_size=3) | st.tuples(NAME, ARGUMENTS), max_size=2))
def test_any_list_is_accepted_or_refused(entries):
    try:
        assert len(make_augmentations(entries)) == len(entries)
    except ValueError as error:
        assert str(error)


def load(value, *opts):
    return load_config(DEMO_CONFIG, ["INPUT.AUGMENTATIONS", value, *opts])


def test_the_key_is_named_on_the_command_line_and_in_files(tmp_path):
    with pytest.raises(InputError, match=r"^INPUT\.AUGMENTATIONS: there is no 'rotat' \(did you mean 'rotate'\?\)"):
        load("['rotat']")
    with pytest.raises(InputError, match=r"^INPUT\.AUGMENTATIONS: for boxes alone; set MODEL\.MASK_ON"):
        load("['rotate']", "MODEL.MASK_ON", "True")
    with pytest.raises(InputError, match=r"^INPUT\.RANDOM_FLIP: 'diagonal' is not one of"):
        load("[]", "INPUT.RANDOM_FLIP", "diagonal")
    path = tmp_path / "config.yaml"
    text = f"_BASE_: {DEMO_CONFIG}\nINPUT:\n  AUGMENTATIONS:\n    - blur\n    - [rotate, {{degrees: 99}}]\n"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^INPUT\.AUGMENTATIONS: rotate: degrees: expected a number from 0 to 30"):
        load_config(str(path))
    path.write_text(text.replace("99", "9"))
    assert load_config(str(path)).INPUT.AUGMENTATIONS == ["blur", ["rotate", {"degrees": 9}]]


def test_every_augmentation_and_its_defaults_are_documented():
    text = (ROOT / "docs/augmentation.md").read_text()

    for name, kind in AUGMENTATIONS.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        for parameter in inspect.signature(kind).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY:
                default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
                assert f"`{parameter.name}` {default}" in row
