"""The benchmark for GPUs, rehearsed without one: what fails, hangs or lacks time costs no other result."""

import json
import sys
import time
from types import SimpleNamespace

import pytest

import gpu
import gpu_bench
from tests.helpers import run

# Scripts that stand for parts.
SUCCEEDS = """print('noise'); print('result: {"name": "one", "us": 1.5}')"""
FAILS = f"{SUCCEEDS}; print('result: cut off'); raise SystemExit('error: out of order')"
HANGS = f"{SUCCEEDS}; import subprocess; subprocess.run(['sleep', '99'])"
# Its result is the outcome of each part so far, as it is in the file.
READS = """
import json
parts = json.load(open(OUT))["parts"]
print("result: " + json.dumps({"name": "seen", **{name: part["status"] for name, part in parts.items()}}))
"""


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Function: {part: script}, flags -> exit status, and the parts of the JSON file."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # changed by the command, and restored after the test
    out = tmp_path / "gpu.json"

    def start(scripts, *flags):
        code = {name: f"OUT = {str(out)!r}\n{script}" for name, script in scripts.items()}
        monkeypatch.setattr(gpu, "command", lambda name, limit, args: [sys.executable, "-u", "-c", code[name]])
        status = gpu.main(["--parts", *scripts, "--out", str(out), *flags])
        return status, json.loads(out.read_text())["parts"]

    return start


def test_results_are_printed_and_in_the_file_after_every_part(benchmark, capsys):
    status, parts = benchmark({"tests": SUCCEEDS, "assigner": READS})

    assert status == 0
    assert parts["tests"] | {"seconds": 0} == {"status": "done", "results": {"one": {"us": 1.5}}, "seconds": 0}
    assert parts["assigner"]["results"]["seen"]["tests"] == "done"
    assert "  one: us 1.5\n" in capsys.readouterr().out


def test_a_part_that_fails_is_reported_and_passed_over(benchmark, capsys):
    status, parts = benchmark({"tests": FAILS, "losses": READS})

    assert status == 1
    assert parts["tests"]["status"] == "failed" and parts["tests"]["exit_status"] == 1
    assert parts["tests"]["results"] == {"one": {"us": 1.5}}
    assert parts["tests"]["output"] == ["noise", "result: cut off", "error: out of order"]
    assert parts["losses"]["results"]["seen"]["tests"] == "failed"
    assert "error: out of order\n" in capsys.readouterr().out


def test_a_part_that_hangs_is_ended_with_what_it_has_started(benchmark, monkeypatch):
    monkeypatch.setattr(gpu, "MIN_SECONDS", 1)
    monkeypatch.setattr(gpu, "SHARES", {"tests": 1, "assigner": 4})
    start = time.monotonic()

    status, parts = benchmark({"tests": HANGS, "assigner": SUCCEEDS}, "--minutes", "0.1")

    assert status == 1 and time.monotonic() - start < 5
    assert parts["tests"]["status"] == "out of time" and parts["tests"]["results"] == {"one": {"us": 1.5}}
    assert parts["assigner"]["status"] == "done"


def test_parts_for_which_there_is_no_time_are_skipped(benchmark):
    status, parts = benchmark({"tests": SUCCEEDS, "step": SUCCEEDS}, "--minutes", "0.3")

    assert status == 1
    assert parts == {name: {"status": "skipped", "reason": "18 s are left"} for name in ("tests", "step")}


def test_a_measurement_that_fails_does_not_end_its_part(capsys):
    bench = gpu_bench.Bench("cpu", True, time.time() + 3600)

    assert bench.attempt("first", lambda: 1 / 0) is None
    assert bench.attempt("second", lambda: {"us": 2}) == {"us": 2}
    assert bench.attempt("third", lambda: {"us": 2}, needs=7200) is None

    first, second, third = (json.loads(line[len(gpu.RESULT) :]) for line in capsys.readouterr().out.splitlines())
    assert first == {"name": "first", "error": "ZeroDivisionError: division by zero"} and bench.failed
    assert second["us"] == 2 and third["skipped"].endswith("s are left, it takes about 7200 s")


def test_results_that_differ_are_a_failure():
    bench = gpu_bench.Bench("cpu", True, time.time() + 3600)

    bench.attempt("equal", lambda: {"equal": True})
    assert not bench.failed
    bench.attempt("different", lambda: {"equal": False})
    assert bench.failed


def test_kernels_are_counted_apart_from_copies():
    names = ["Memcpy HtoD (Pageable -> Device)", "add_losses", "void at::fill<4, at::Fill<float> >(int)", "add_losses"]
    durations = [1.0, 70.0, 2.0, 71.0]
    events = [
        SimpleNamespace(name=name, time_range=SimpleNamespace(elapsed_us=lambda us=us: us))
        for name, us in zip(names, durations, strict=True)
    ]

    assert gpu_bench.summary(events) == {
        "kernels": 3,
        "copies_and_fills": 1,
        "gpu_us": 143.0,
        "by_name": {"add_losses": (2, 141.0), "at::fill": (1, 2.0)},
    }


@pytest.mark.slow
def test_rehearsal(tmp_path):
    """Every part runs, and says of what needs a GPU that it does."""
    out = tmp_path / "gpu.json"

    result = run("benchmarks/gpu.py", "--device", "cpu", "--quick", "--out", out, check=False)

    found = json.loads(out.read_text())
    parts = {name: part["results"] for name, part in found["parts"].items()}
    failed = {name: result for part in parts.values() for name, result in part.items() if "error" in result}
    assert not failed and result.returncode == 0, result.stdout[-3000:]
    assert list(parts) == list(gpu.SHARES) and found["machine"]["torch"]
    assert parts["tests"]["tests"]["passed"] + parts["tests"]["tests"]["skipped"] == parts["tests"]["tests"]["of"]
    assert parts["assigner"]["20 objects, in a graph"] == {"skipped": "needs a CUDA GPU"}
    assert parts["assigner"]["1000 objects, full matrix"]["differing_anchors"] == 0
    assert parts["losses"]["losses, bfloat16"]["share_of_copy_in_a_row"] > 0
    assert parts["step"]["atss / retinanet, bfloat16"]["ms"] > 0
    assert parts["inference"]["compiled, 1 image(s), float32"]["logits_differ_by"] < 1e-5
    assert parts["training"]["demo with AMP"]["iterations"] == 4
    assert len(parts["training"]["two processes, gloo"]["losses"]) == 5
