"""Loggers: Weights & Biases, MLflow and ClearML, offline, and what a logger that fails does to training."""

import json
import struct
import threading
import zipfile
from typing import ClassVar

import pytest
from detectron2.utils.events import EventStorage

from atss.config.checks import LOGGERS as KNOWN
from atss.config.checks import check_loggers
from atss.engine import Trainer, loggers
from atss.engine.loggers import RunLogger
from atss.errors import InputError
from tests.helpers import SHORT, train


class Recorded:
    """A logger's run that keeps what it is given."""

    runs: ClassVar = []

    def __init__(self, folder, config, run_id):
        self.id, self.config, self.calls = run_id or f"run{len(self.runs)}", config, []
        self.runs.append(self)

    def log(self, scalars, iteration):
        self.calls.append((iteration, scalars))

    def log_file(self, path):
        self.calls.append(path.name)

    def finish(self, status):
        self.calls.append(status)


@pytest.fixture
def recorded(monkeypatch):
    """The runs of a logger that stands for Weights & Biases."""
    monkeypatch.setattr(Recorded, "runs", [])
    monkeypatch.setitem(loggers.LOGGERS, "wandb", Recorded)
    return Recorded.runs


def write(run, **scalars_by_iteration):
    with EventStorage() as storage:
        for iteration, scalars in scalars_by_iteration.items():
            storage.iter = int(iteration.removeprefix("at"))
            storage.put_scalars(smoothing_hint=False, **scalars)
        run.write()


def test_scalars_are_passed_on_once_at_their_iterations(recorded, tmp_path):
    run = RunLogger("wandb", tmp_path, {"MODEL.ATSS.TOPK": 9, "DATASETS.TRAIN": ("cells",)})
    run.start(resumed=False)
    with EventStorage() as storage:
        storage.iter = 7
        storage.put_scalar("bbox/AP", 31.0, smoothing_hint=False)
        for storage.iter in range(20):
            storage.put_scalar("total_loss", storage.iter)
        run.write()
        run.write()
        storage.iter = 39
        storage.put_scalar("total_loss", 3.0)
        run.write()
    run.finish("finished", tmp_path / "report.html")

    (one,) = recorded
    assert one.calls[:2] == [(7, {"bbox/AP": 31.0}), (19, {"total_loss": pytest.approx(9.5)})]
    assert one.calls[2][0] == 39 and one.calls[3:] == ["report.html", "finished"]
    assert one.config == {"MODEL.ATSS.TOPK": 9, "DATASETS.TRAIN": "('cells',)"}


def test_a_resumed_training_continues_the_run_and_another_training_in_the_folder_begins_one(recorded, tmp_path):
    for resumed in (False, True, False):
        run = RunLogger("wandb", tmp_path, {})
        run.start(resumed)
        run.finish("stopped")

    assert [run.id for run in recorded] == ["run0", "run0", "run2"]


def test_a_logger_that_fails_is_one_warning(recorded, tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(Recorded, "log", fail)
    run = RunLogger("wandb", tmp_path, {})
    run.start(resumed=False)

    write(run, at0={"lr": 1.0}, at1={"loss": 2.0})
    run.finish("finished")

    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "wandb: no route to host. Training goes on; this is said once."
    assert recorded[0].calls == ["finished"], "it is still told what comes next"


def test_a_logger_that_hangs_does_not_hold_up_training(recorded, tmp_path, monkeypatch, caplog):
    released = threading.Event()
    monkeypatch.setattr(Recorded, "log", lambda *arguments: released.wait(60))
    monkeypatch.setattr(loggers, "MAX_WAIT", 0.01)
    run = RunLogger("wandb", tmp_path, {})
    run.start(resumed=False)

    write(run, at0={"lr": 1.0})
    run.finish("finished")

    assert "wandb has not received everything" in caplog.text
    released.set()


def test_a_logger_that_cannot_begin_ends_training_but_not_a_resumed_one(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise ValueError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setitem(loggers.LOGGERS, "wandb", refuse)
    with pytest.raises(InputError, match=r"OUTPUT\.LOGGERS: wandb cannot begin .*: No API key configured"):
        RunLogger("wandb", tmp_path, {}).start(resumed=False)

    run = RunLogger("wandb", tmp_path, {})
    run.start(resumed=True)
    write(run, at0={"lr": 1.0})
    run.finish("finished")
    assert "Training goes on without it" in caplog.text


def test_a_logger_must_be_known_and_installed(tiny_config, monkeypatch):
    assert set(KNOWN) == set(loggers.LOGGERS)
    with pytest.raises(InputError, match=r"OUTPUT\.LOGGERS: 'tensorboard' is not one of 'wandb', 'mlflow', 'clearml'"):
        tiny_config({"OUTPUT.LOGGERS": ["tensorboard"]})

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"OUTPUT\.LOGGERS: mlflow is not installed: pip install mlflow"):
        tiny_config({"OUTPUT.LOGGERS": ["mlflow"]})


def test_a_folder_of_the_packages_name_is_not_the_package(tiny_config, tmp_path, monkeypatch):
    """Such as the one that Weights & Biases writes its files into."""
    cfg = tiny_config().clone()
    cfg.defrost()
    cfg.OUTPUT.LOGGERS = ["clearml"]
    (tmp_path / "clearml").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])

    with pytest.raises(InputError, match="pip install clearml"):
        check_loggers(cfg)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "stopped")])
def test_how_a_run_ends(recorded, shapes, tmp_path, error, status):
    settings = {**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "DATASETS.TEST": (), "OUTPUT.LOGGERS": ["wandb"]}

    def fail(trainer):
        raise error

    with pytest.raises(error):
        train(settings, after_step=fail)

    (run,) = recorded
    assert run.calls[-1] == status
    assert run.config["SOLVER.MAX_ITER"] == 24


def wandb_records(path):
    """The records of a file of Weights & Biases: blocks of 32 KiB, in them parts with checksum, length and type."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, message = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(message)
            message = b""


@pytest.mark.slow
def test_the_real_packages_offline(shapes, tiny_config, tmp_path, monkeypatch):
    """24 iterations, evaluated after 12 and at the end: stopped after 14, and resumed with a further logger."""
    mlflow, clearml = (pytest.importorskip(name) for name in ("mlflow", "clearml"))
    pytest.importorskip("wandb")
    environment = {
        "WANDB_MODE": "offline", "WANDB_DATA_DIR": tmp_path, "WANDB_CACHE_DIR": tmp_path, "CLEARML_CACHE_DIR": tmp_path,
        "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "true",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    clearml.Task.set_offline(True)
    out = tmp_path / "out"
    settings = {
        **SHORT, **shapes, "OUTPUT_DIR": out, "TEST.EVAL_PERIOD": 12, "TEST.VALIDATION_LOSS": False,
        "SOLVER.CHECKPOINT_PERIOD": 12, "OUTPUT.LOGGERS": ["wandb", "mlflow"],
    }  # fmt: skip

    def stop(trainer):
        if trainer.iter == 12:
            trainer.stop_on_signal._received = "SIGTERM"

    train(settings, after_step=stop)
    client = mlflow.MlflowClient()
    run_id = (out / "mlflow_run_id").read_text().strip()
    assert client.get_run(run_id).info.status == "KILLED"
    (out / "report.html").write_text("the report")
    trainer = Trainer(tiny_config({**settings, "OUTPUT.LOGGERS": ["wandb", "mlflow", "clearml"]}))
    trainer.resume_or_load()
    trainer.train(at_end=lambda: out / "report.html")

    # What metrics.json has, by iteration and name.
    rows = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    expected = {(row["iteration"], name): value for row in rows for name, value in row.items() if name != "iteration"}
    approx = pytest.approx(expected, rel=1e-12, nan_ok=True)
    evaluated = [iteration for iteration, name in expected if name == "bbox/AP"]
    assert evaluated[0] == 11 and len(evaluated) == 2
    first_resumed = min(iteration for iteration, name in expected if iteration > 13)

    # MLflow: one run.
    run = client.get_run(run_id)
    histories = {name: client.get_metric_history(run_id, name) for name in run.data.metrics}
    assert {(metric.step, metric.key): metric.value for of in histories.values() for metric in of} == approx
    assert run.info.status == "FINISHED" and run.data.params["MODEL.ATSS.TOPK"] == "9"
    assert [file.path for file in client.list_artifacts(run_id)] == ["report.html"]

    # Weights & Biases: one run in two files, which `wandb sync` puts together.
    files = sorted(out.glob("wandb/offline-run-*/run-*.wandb"))
    records = [record for file in files for record in wandb_records(file)]
    assert len(files) == 2 and {r.run.run_id for r in records if r.HasField("run")} == {files[0].stem[4:]}
    found = {}
    for record in records:
        values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        found.update({(values["_step"], name): value for name, value in values.items() if name[0] != "_"})
    assert found == approx
    config = {u.key: json.loads(u.value_json) for record in records for u in record.run.config.update}
    assert config["MODEL.ATSS.TOPK"] == 9 and config["DATASETS.TRAIN"] == "('tiny_train',)"
    assert [r.artifact.type for r in records if r.HasField("artifact")] == ["report"]
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [255, 0]

    # ClearML: a task of its own for what it has seen.
    (path,) = tmp_path.glob("offline/*.zip")
    with zipfile.ZipFile(path) as file:
        events = [event for line in file.read("metrics.jsonl").splitlines() for event in json.loads(line)]
        assert any(name.endswith("report.html") for name in file.namelist())
        parameters = json.loads(file.read("task.json"))["hyperparams"]["config"]
    names = {
        (e["iter"], e["metric"] if e["variant"] == e["metric"] else f"{e['metric']}/{e['variant']}") for e in events
    }
    assert names == {key for key in expected if key[0] >= first_resumed}
    assert parameters["MODEL.ATSS.TOPK"]["value"] == "9"
