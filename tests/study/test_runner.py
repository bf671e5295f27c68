"""The study's command, with a stand-in for training."""

import fcntl
import json
import subprocess
import sys
import time

import pytest

from atss.commands import study
from atss.config import parse_with_opts
from atss.errors import InputError
from atss.study import runner
from tests.helpers import DEMO_CONFIG, ROOT, TINY, pairs

pytestmark = pytest.mark.slow

# Stands in for train_net.py: writes metrics.json, or fails if an environment variable asks for it.
TRAIN = """
import json, os, sys, time
keys = dict(zip(sys.argv[4::2], sys.argv[5::2]))
folder, side = keys["OUTPUT_DIR"], keys["MODEL.ATSS.ANCHOR_SCALE"].removesuffix(".0")
assert sys.argv[1] == "--config-file" and sys.argv[3] == "--resume"
with open(os.path.join(folder, "..", "..", "order"), "a") as file:
    file.write(f"{side} {keys['SEED']}\\n")
if side == os.environ.get("FAILS_AT"):
    print("Traceback\\nerror: out of luck")
    sys.exit(1)
with open(os.path.join(folder, "metrics.json"), "a") as file:
    file.write(json.dumps({"iteration": 1, "eta_seconds": 3.0}) + "\\n")
    file.flush()
    time.sleep(float(os.environ.get("SECONDS", 0)))
    figures = {f"bbox/{name}": 10.0 * int(keys["SEED"]) for name in ("AP", "AP50", "AP75", "APs", "APm")}
    if os.environ.get("FINDS_NOTHING_AT") == keys["SEED"]:
        figures = dict.fromkeys(figures, float("nan"))
    if os.environ.get("DIES_BEFORE_EVALUATION") != side:
        file.write(json.dumps({**figures, "bbox/APl": float("nan"), "iteration": 1099}) + "\\n")
    # An evaluation on the way does not count.
    file.write(json.dumps({"bbox/AP": 0.0, "iteration": 500}) + "\\n")
"""


@pytest.fixture
def go(tmp_path, monkeypatch, shapes):
    """Function: arguments -> runs the study's command with the stand-in."""
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(study, "TRAIN", (sys.executable, str(tmp_path / "train.py")))
    monkeypatch.setattr(runner, "PERIOD", 0.01)

    def run(*args, opts=()):
        common = ["--config-file", DEMO_CONFIG, "--output", str(tmp_path / "study"), *pairs(shapes)]
        study.main(parse_with_opts(study.get_parser(), [*args, *common, *opts]))
        return tmp_path / "study"

    return run


def order(folder):
    """Side of the anchor and seed of every run that was started."""
    return (folder / "runs/order").read_text().split("\n")[:-1]


def test_rows_run_in_order_and_finished_ones_are_skipped(go, capsys):
    folder = go("--table", "5", "--seeds", "1", "2")

    assert order(folder) == [f"{side} {seed}" for side in range(5, 10) for seed in (1, 2)]
    results = [json.loads(path.read_text()) for path in folder.glob("runs/*/seed-2/result.json")]
    assert len(results) == 5 and all(result["AP"] == 20.0 and 3 < result["positives"] < 30 for result in results)
    assert "| 5 strides | 15.0 ± 7.1 |" in (folder / "table-5.md").read_text()
    assert (folder / "table-5.png").exists()
    assert "[10/10] 9 strides, seed 2: AP 20.0 after 0:00:0" in capsys.readouterr().out

    go("--table", "5", "--seeds", "1", "2")

    assert len(order(folder)) == 10
    assert "10 of 10 runs are done already" in capsys.readouterr().out


def test_an_interrupted_run_resumes_in_its_folder_and_a_trained_one_only_gets_its_result(go, tmp_path, monkeypatch):
    monkeypatch.setenv("DIES_BEFORE_EVALUATION", "5")
    with pytest.raises(InputError, match=r"5 strides, seed 1: no AP in .*metrics\.json"):
        go("--table", "5")
    (interrupted,) = tmp_path.glob("study/runs/*/seed-1")

    monkeypatch.delenv("DIES_BEFORE_EVALUATION")
    folder = go("--table", "5")

    assert order(folder) == ["5 1"] + [f"{side} 1" for side in range(5, 10)]
    assert len((interrupted / "metrics.json").read_text().splitlines()) == 2 + 3, "in the folder it had"

    result = interrupted / "result.json"
    before = result.read_text()
    result.unlink()
    go("--table", "5")

    assert len(order(folder)) == 6 and result.read_text() == before, "not trained again"


def test_equal_systems_of_several_tables_run_once(go):
    folder = go("--table", "2", "3")
    assert len(order(folder)) == 4 + 5 - 2
    assert "| RetinaNet (#A=1) | 10.0 |" in (folder / "table-3.md").read_text()

    go("--table", "2", opts=["SOLVER.MAX_ITER", "7"])
    assert len(order(folder)) == 4 + 5 - 2 + 4, "another base config is another run"
    assert "7 iterations" in (folder / "table-2.md").read_text()

    irrelevant = ["DATALOADER.NUM_WORKERS", "1", "TEST.EVAL_PERIOD", "500", "SOLVER.CHECKPOINT_PERIOD", "9"]
    go("--table", "2", opts=irrelevant)
    assert len(order(folder)) == 4 + 5 - 2 + 4, "irrelevant keys do not matter"


def test_a_failed_run_stops_the_study_with_one_line(go, tmp_path, monkeypatch):
    monkeypatch.setenv("FAILS_AT", "7")
    with pytest.raises(InputError, match="7 strides, seed 1: error: out of luck") as caught:
        go("--table", "5")

    assert "\n" not in str(caught.value)
    assert len(list(tmp_path.glob("study/runs/*/seed-1/result.json"))) == 2
    assert "| 6 strides | 10.0 |" in (tmp_path / "study/table-5.md").read_text()

    monkeypatch.delenv("FAILS_AT")
    assert order(go("--table", "5"))[3:] == ["7 1", "8 1", "9 1"]


def test_a_signal_ends_the_running_row_and_the_message_tells_how_to_resume(tmp_path, shapes):
    """With a real training."""
    args = ["--table", "2", "--config-file", DEMO_CONFIG, "--output", tmp_path / "study", *pairs({**TINY, **shapes})]
    line = [sys.executable, "tools/study.py", *map(str, args)]
    child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("study/runs/*/seed-1/config.yaml")):
        assert child.poll() is None
        time.sleep(0.1)

    child.terminate()
    output, errors = child.communicate(timeout=60)

    assert child.returncode == 1 and output.startswith("[1/4] IoU, from a box, seed 1")
    assert errors.strip().splitlines()[-1] == "error: interrupted; the same command goes on from the last checkpoint"
    assert not subprocess.run(["pgrep", "-f", f"{tmp_path}.*seed-1"], capture_output=True).stdout


def test_without_any_detection_ap_is_zero(go, monkeypatch):
    monkeypatch.setenv("FINDS_NOTHING_AT", "2")

    folder = go("--table", "5", "--seeds", "1", "2")

    assert "| 5 strides | 5.0 ± 7.1 | 5.0 ± 7.1 | 5.0 ± 7.1 | - | - | - |" in (folder / "table-5.md").read_text()


def test_a_run_of_another_process_is_not_started_again(go, tmp_path):
    go("--table", "5")
    log = next(tmp_path.glob("study/runs/*/seed-1/study.log"))
    for name in ("result.json", "metrics.json"):
        (log.parent / name).unlink()
    with open(log, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        with pytest.raises(InputError, match=r"\d strides, seed 1: another process runs it, see .*study\.log"):
            go("--table", "5")

    assert len(order(go("--table", "5"))) == 6


def test_without_a_terminal_there_is_a_line_every_few_minutes_with_the_time_left(go, monkeypatch, capsys):
    monkeypatch.setattr(runner, "LINE_PERIOD", 0.0)
    monkeypatch.setenv("SECONDS", "0.1")

    go("--table", "5")

    printed = capsys.readouterr().out
    assert "[2/5] 6 strides, seed 1: iteration 1/1100, 0:00:03 left, 0:00:" in printed
    assert " for all\n" in printed and " left for all\n" in printed and "\r" not in printed


def test_dry_run_prints_configs_and_commands_and_writes_nothing(go, tmp_path, capsys):
    go("--table", "1", "--dry-run", "--num-gpus", "8")

    printed = capsys.readouterr().out
    assert printed.count("# ") == 7 and printed.count("--num-gpus 8") == 7
    assert "# RetinaNet (#A=1), seed 1" in printed and "MODEL.ATSS.BOX_LOSS: smooth_l1" in printed
    assert not (tmp_path / "study").exists()


def test_a_warning_on_the_base_config_is_logged_once(go, caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    warning = "MODEL.DEVICE is cuda, but there is no CUDA GPU here: running on the CPU."
    for times in (1, 2):
        go("--table", "1", "--dry-run", opts=["MODEL.DEVICE", "cuda"])

        messages = [record.message for record in caplog.records if record.name == "atss.config.load"]
        assert messages == [warning] * times


@pytest.mark.parametrize(
    "opts, named",
    [
        (["MODEL.ATSS.TOPKK", "3"], "MODEL.ATSS.TOPKK"),
        (["SOLVER.MAX_ITER"], "pairs"),
        (["MODEL.ATSS.IN_FEATURES", "['p3','p4']"], "MODEL.ATSS.SCALE_RANGES"),
        (["DATASETS.TEST", "()"], r"exactly one in DATASETS\.TEST"),
        (["DATASETS.TEST", "('tiny_val', 'tiny_train')"], r"exactly one in DATASETS\.TEST"),
    ],
)
def test_an_invalid_base_config_is_refused_before_the_first_run(go, tmp_path, opts, named):
    with pytest.raises(InputError, match=named):
        go("--table", "1", opts=opts)

    assert not (tmp_path / "study").exists()


def test_there_are_eight_tables(go):
    with pytest.raises(SystemExit):
        go("--table", "9")
