"""Hostile config files and command lines, through train_net.py."""

import os
import time

import pytest

from tests.helpers import DEMO_CONFIG, error_line, run

pytestmark = pytest.mark.slow

DEEP = 5000


def growing(first, other, levels=12, width=12):
    """Aliases that expand to `width` to the power of `levels`."""
    values = [first, *(other.format(", ".join([f"*a{i}"] * width)) for i in range(levels - 1))]
    return "\n".join(f"a{i}: &a{i} {value}" for i, value in enumerate(values))


CONFIGS = {
    "empty": "",
    "words": "just words",
    "number": "3",
    "list": "- a\n- b",
    "nothing": "~",
    "two documents": "MODEL: {}\n---\nMODEL: {}",
    "binary": bytes(range(256)),
    "nul bytes": b"MODEL:\0 {}",
    "utf-16": "MODEL: {}".encode("utf-16"),
    "invalid utf-8": b"MODEL: {WEIGHTS: \xff\xfe\xfd}",
    "escape sequences of terminals": b"MODEL: {WEIGHTS: \x1b[2J}",
    "tabs": "MODEL:\n\tWEIGHTS: a",
    "unclosed": "MODEL: [",
    "brackets": "[" * DEEP,
    "braces": "{" * DEEP,
    "nested lists": "MODEL: " + "[" * DEEP + "]" * DEEP,
    "nested keys": "\n".join(" " * i + "a:" for i in range(DEEP // 10)),
    "nested dashes": "- " * DEEP,
    "question marks": "? " * DEEP,
    "aliases that grow": growing("[x]", "[{}]"),
    "merged keys that grow": growing("{x: 1}", "{{<<: [{}]}}"),
    "an alias of itself": "MODEL: &a {ATSS: *a}",
    "a list of itself": "MODEL: &a [*a]",
    "an unknown alias": "MODEL: *nowhere",
    "a megabyte": "A: " + "a" * (1 << 20),
    "long number": "SOLVER: {MAX_ITER: " + "9" * 5000 + "}",
    "long number of base 60": "SOLVER: {MAX_ITER: 1" + ":1" * 90_000 + "}",
    "float of base 60": "SOLVER: {BASE_LR: 1" + ":1" * 5000 + ".5}",
    "impossible date": "A: 2020-99-99",
    "tag that calls": "MODEL: {WEIGHTS: !!python/object/apply:os.system ['touch MARKER']}",
    "tag that makes an object": "MODEL: !!python/object/new:subprocess.Popen [['touch', 'MARKER']]",
    "tag that names a module": "MODEL: {WEIGHTS: !!python/module:antigravity}",
    "tag of a tuple": "INPUT: {MIN_SIZE_TRAIN: !!python/tuple [800]}",
    "own tag": "MODEL: !code os.system",
    "binary tag": "MODEL: {WEIGHTS: !!binary aGk=}",
    "value of code": "_BASE_: DEMO\nMODEL: {WEIGHTS: \"__import__('os').system('touch MARKER')\"}",
    "set": "MODEL: !!set {a, b}",
    "key that is a list": "? [a]\n: b",
    "key that is a number": "1: 2",
    "key that is nothing": "~: 2",
    "unknown key": "MODEL: {ATSS: {TOPKK: 9}}",
    "section that is a number": "MODEL: 3",
    "number that is a section": "SOLVER: {MAX_ITER: {A: 1}}",
    "number that is a list": "SOLVER: {MAX_ITER: [1, 2]}",
    "version of the future": "VERSION: 99",
    "version that is a text": "VERSION: two",
    "base of itself": "_BASE_: config.yaml",
    "base that is a number": "_BASE_: 3",
    "base that is nothing": "_BASE_: ~",
    "bases of itself": "_BASE_: [config.yaml, config.yaml]",
    "base nowhere": "_BASE_: nowhere.yaml",
    "base that is a folder": "_BASE_: /",
    "base that never ends": "_BASE_: /dev/zero",
    "base that is no config": "_BASE_: /etc/passwd",
    "too many bases": "_BASE_: [" + ", ".join(["other.yaml"] * 5000) + "]",
    "no pixels": "_BASE_: DEMO\nINPUT: {MAX_PIXELS: 0}",
    "pixels that are a text": "INPUT: {MAX_PIXELS: many}",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_config_files(doors, tmp_path, text):
    path = tmp_path / "config.yaml"
    data = text if isinstance(text, bytes) else text.encode()
    data = data.replace(b"MARKER", str(doors.marker).encode()).replace(b"DEMO", DEMO_CONFIG.encode())
    path.write_bytes(data)
    start = time.perf_counter()

    line = doors.train({}, config=path)

    assert time.perf_counter() - start < 20
    assert str(path) in line or "MAX_PIXELS" in line or "no such checkpoint" in line


def test_config_files_that_are_each_others_base(doors, tmp_path):
    for here, there in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{here}.yaml").write_text(f"_BASE_: {there}.yaml")

    assert "builds on itself" in doors.train({}, config=tmp_path / "a.yaml")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_config_files_that_are_none(doors, tmp_path, make):
    make(tmp_path / "config.yaml")

    assert "no such config file" in doors.train({}, config=tmp_path / "config.yaml")


OVERRIDES = {
    "brackets": ("SOLVER.MAX_ITER", "[" * 100_000),
    "nested lists": ("SOLVER.MAX_ITER", "[" * 150 + "]" * 150),
    "minus signs": ("SOLVER.MAX_ITER", "-" * 100_000 + "1"),
    "sums": ("SOLVER.MAX_ITER", "1" + "+1" * 50_000),
    "long number": ("SOLVER.MAX_ITER", "9" * 100_000),
    "power": ("SOLVER.MAX_ITER", "9**9**9"),
    "repetition": ("SOLVER.MAX_ITER", "[0]*10**12"),
    "code": ("MODEL.WEIGHTS", "__import__('os').system('touch MARKER')"),
    "dict": ("MODEL.ATSS.TOPK", "{1: 2}"),
    "key that cannot be one": ("MODEL.ATSS.TOPK", "{[]: 2}"),
    "nul byte": ("SOLVER.MAX_ITER", "1\0"),
    "lines": ("SOLVER.MAX_ITER", "a\nerror: b\nc"),
    "unknown key": ("MODEL.NOTHING", "1"),
    "no key": ("", "1"),
    "dots": ("...", "1"),
    "private key": ("MODEL.__dict__", "1"),
    "key behind a value": ("SOLVER.MAX_ITER.X", "1"),
    "base": ("_BASE_", "config.yaml"),
    "infinite": ("SOLVER.MAX_ITER", "1e999"),
}


@pytest.mark.parametrize("override", OVERRIDES.values(), ids=OVERRIDES)
def test_overrides(doors, override):
    key, value = override

    doors.train({key: value.replace("MARKER", str(doors.marker))})


def test_a_key_without_a_value(doors):
    doors.train({}, "MODEL.ATSS.TOPK")


def test_the_command_as_a_process(doors, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIGS["tag that calls"].replace("MARKER", str(doors.marker)))

    result = run("train_net.py", "--config-file", path, "OUTPUT_DIR", doors.output, check=False)

    assert "not a plain yaml file" in error_line(result)
    assert not doors.marker.exists() and not doors.output.exists()
