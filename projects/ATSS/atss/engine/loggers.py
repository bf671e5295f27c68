"""Weights & Biases, MLflow and ClearML receive the scalars, the config and the report of a run (OUTPUT.LOGGERS)."""

import logging
import os
import queue
import re
import threading
import time
from collections import defaultdict
from pathlib import Path

from detectron2.utils.events import EventWriter, get_event_storage

from ..errors import InputError, first_line

logger = logging.getLogger(__name__)

# Project, or experiment, unless the variable of the package names another.
PROJECT = "atss"
# Scalars are medians over this many iterations, as in metrics.json.
WINDOW = 20
# Seconds that the end of training waits for a package that still sends.
MAX_WAIT = 60


class WandbRun:
    """A run of Weights & Biases, whose files are in the run's folder."""

    def __init__(self, folder, config, run_id):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=os.environ.get("WANDB_NAME", folder.name),
            dir=str(folder), config=config, allow_val_change=True, id=run_id, resume="allow" if run_id else None,
            settings=wandb.Settings(console="off"),
        )  # fmt: skip
        self.id = self._run.id

    def log(self, scalars, iteration):
        if iteration >= self._run.step:  # steps of a run never decrease; a resumed one repeats some
            self._run.log(scalars, step=iteration)

    def log_file(self, path):
        artifact = self._wandb.Artifact(f"{path.stem}-{self.id}", path.stem)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self, status):
        self._run.finish(exit_code={"finished": 0, "stopped": 255, "failed": 1}[status])


class MlflowRun:
    """A run of MLflow."""

    def __init__(self, folder, config, run_id):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric, self.id = MlflowClient(), Metric, run_id
        if self.id:
            self._client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.id = self._client.create_run(experiment_id, run_name=folder.name).info.run_id
        self._log(params=[Param(key, str(value)) for key, value in config.items()])

    def _log(self, **values):
        ((kind, entities),) = values.items()
        for first in range(0, len(entities), 100):  # the most parameters of a request
            self._client.log_batch(self.id, **{kind: entities[first : first + 100]})

    def log(self, scalars, iteration):
        now = int(1000 * time.time())
        # Names of classes may have characters that MLflow refuses.
        named = {re.sub(r"[^/\w.\- :]", "_", name): value for name, value in scalars.items()}
        self._log(metrics=[self._metric(name, value, now, iteration) for name, value in named.items()])

    def log_file(self, path):
        self._client.log_artifact(self.id, str(path))

    def finish(self, status):
        states = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
        self._client.set_terminated(self.id, states[status])


class ClearmlRun:
    """A task of ClearML, without what ClearML would take from other libraries, and without the state of a repository.

    ClearML looks for the latter in a thread with processes of its own, for which the end of training waits, now and
    then for minutes.
    """

    UNUSED = (
        "detect_repository", "hydra", "scikit", "joblib", "matplotlib", "tensorflow", "tensorboard", "tfdefines",
        "pytorch", "megengine", "xgboost", "catboost", "fastai", "lightgbm", "gradio",
    )  # fmt: skip

    def __init__(self, folder, config, run_id):
        from clearml import Task

        Task.set_random_seed(None)  # it would seed all generators
        self._task = Task.init(
            project_name=os.environ.get("CLEARML_PROJECT", PROJECT), task_name=folder.name,
            reuse_last_task_id=run_id or False, continue_last_task=0 if run_id else False,  # 0: iterations as given
            auto_connect_frameworks=dict.fromkeys(self.UNUSED, False), auto_connect_arg_parser=False,
            auto_connect_streams=False, auto_resource_monitoring=False,
        )  # fmt: skip
        self._task.set_parameters({f"config/{key}": value for key, value in config.items()})
        self.id = self._task.id

    def log(self, scalars, iteration):
        for name, value in scalars.items():
            title, _, series = name.partition("/")
            self._task.get_logger().report_scalar(title, series or title, value, iteration)

    def log_file(self, path):
        self._task.upload_artifact(path.stem, str(path))

    def finish(self, status):
        self._task.close()
        if status != "finished":
            mark = self._task.mark_stopped if status == "stopped" else self._task.mark_failed
            mark(force=True)


LOGGERS = {"wandb": WandbRun, "mlflow": MlflowRun, "clearml": ClearmlRun}


class RunLogger(EventWriter):
    """Passes what the event storage holds on to a run of one of `LOGGERS`, at the iterations of metrics.json.

    A thread of its own does so: training neither waits for it nor ends with it. The first failure is a warning.

    Args:
        name: key of `LOGGERS`.
        output_dir: folder of the training; `<name>_run_id` there holds the id of the run, for a resumed training.
        config: keys and values; those that are neither text nor numbers become text.
    """

    def __init__(self, name: str, output_dir: str, config: dict[str, object]):
        self.name, self.folder = name, Path(output_dir).resolve()
        self.config = {key: value if isinstance(value, (int, float)) else str(value) for key, value in config.items()}
        self._run, self._last, self._failed = None, -1, False
        self._calls = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self, resumed: bool) -> None:
        """Begin a run, or continue that of the training that is resumed.

        Raises:
            InputError: the package cannot begin a run, for example without an account. In a resumed training, which
                may have been started by nobody, this is a warning.
        """
        id_file = self.folder / f"{self.name}_run_id"
        try:
            run_id = id_file.read_text(encoding="utf-8").strip() if resumed and id_file.is_file() else None
            run = LOGGERS[self.name](self.folder, self.config, run_id)
            id_file.write_text(f"{run.id}\n", encoding="utf-8")
        except Exception as error:
            line = f"OUTPUT.LOGGERS: {self.name} cannot begin or continue its run: {first_line(error)}"
            if not resumed:
                raise InputError(line) from error
            logger.warning("%s. Training goes on without it.", line)
        else:
            self._run = run
            self._thread.start()

    def write(self) -> None:
        """Pass on the scalars that are new, each at its own iteration."""
        if self._run is None:
            return
        new = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(WINDOW).items():
            if iteration > self._last:
                new[iteration][name] = value
        for iteration in sorted(new):
            self._last = iteration
            self._calls.put(("log", new[iteration], iteration))

    def finish(self, status: str, file: str | os.PathLike | None = None) -> None:
        """End the run as "finished", "stopped" or "failed", with a file as its artifact."""
        if self._run is None:
            return
        if file:
            self._calls.put(("log_file", Path(file)))
        self._calls.put(("finish", status))
        self._calls.put(None)
        self._thread.join(MAX_WAIT)
        if self._thread.is_alive():
            logger.warning("%s has not received everything within %d seconds.", self.name, MAX_WAIT)

    def _work(self):
        while (call := self._calls.get()) is not None:
            try:
                getattr(self._run, call[0])(*call[1:])
            except Exception as error:
                if not self._failed:
                    logger.warning("%s: %s. Training goes on; this is said once.", self.name, first_line(error))
                self._failed = True
