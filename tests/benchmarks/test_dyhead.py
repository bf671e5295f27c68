"""`python benchmarks/dyhead.py` runs where mmdetection is not installed."""

import pytest

from tests.helpers import run_forked


@pytest.mark.slow
def test_it_prints_the_time_of_a_step():
    lines = run_forked("benchmarks/dyhead.py", "--size", 64, 96, "--repeat", 1).stdout.splitlines()

    assert any("1 x 64x96, forward and backward" in line for line in lines)
    assert any("this project" in line and line.endswith(" s") for line in lines)
