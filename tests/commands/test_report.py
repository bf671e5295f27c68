"""`python tools/report.py` on a run that was made up."""

import pytest

from tests.helpers import error_line, run_forked
from tests.report.runs import evaluated, log, make_run, random_boxes


@pytest.mark.slow
def test_it_prints_where_the_page_is(tmp_path):
    folder = make_run(tmp_path, *([x] for x in random_boxes(0)), [*log(3), evaluated(59, 20.0)])

    result = run_forked("tools/report.py", folder)

    assert result.stdout == f"{folder}/report.html\n" and result.stderr == ""
    assert (folder / "report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_folder_without_a_run_is_one_line_of_error(tmp_path):
    line = error_line(run_forked("tools/report.py", tmp_path, check=False))

    assert f"{tmp_path}: not the folder of a run" in line
