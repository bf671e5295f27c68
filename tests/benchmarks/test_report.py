"""The benchmark writes a run and its report, and prints three measurements."""

import re
import shutil
import sys

import evaluation
import report


def test_output(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "CLASSES", 3)  # charts of 80 take their time
    flags = ["--images", "6", "--spread", "3", "--loads", "1", "--keep", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["report.py", *flags])

    report.main()

    output = capsys.readouterr().out
    assert "6 images, 3 classes" in output and "600 detections" in output
    assert float(re.search(r"^seconds to make the report: ([\d.]+)$", output, re.M)[1]) > 1
    size = float(re.search(r"^megabytes of the page: ([\d.]+)$", output, re.M)[1])
    assert abs(size - (tmp_path / "report.html").stat().st_size / 1e6) < 0.01
    if any(map(shutil.which, report.BROWSERS)):
        assert re.search(r"^milliseconds to load it: \d+ \(from \d+ to \d+\)$", output, re.M)
    assert len(list((tmp_path / "images").iterdir())) == 6
