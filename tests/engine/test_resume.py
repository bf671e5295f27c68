"""A run that was interrupted ends with the weights of one that was not, to the last bit."""

import os
import shutil
import signal

import pytest
import torch

from soak import compare, soak
from tests.helpers import SHORT
from tests.helpers import train as train_net

pytestmark = pytest.mark.slow

SETTINGS = {
    **SHORT, "SOLVER.MAX_ITER": 12, "SOLVER.CHECKPOINT_PERIOD": 4, "SOLVER.EMA_DECAY": 0.9, "TEST.EVAL_PERIOD": 4,
    "TEST.KEEP_BEST": True, "INPUT.MIN_SIZE_TRAIN": "(96, 128)",
}  # fmt: skip


def train(folder, datasets, *flags, after_step=None, **settings):
    return train_net({**SETTINGS, **datasets, "OUTPUT_DIR": folder, **settings}, *flags, after_step=after_step)


@pytest.fixture(scope="module")
def undisturbed(shapes, tmp_path_factory):
    """Folder with the `output` of a whole run, and copies of it as it was `after_3` and more iterations."""
    root = tmp_path_factory.mktemp("undisturbed")

    def copy(trainer):
        if trainer.iter in (3, 5, 7, 9, 10):
            shutil.copytree(root / "output", root / f"after_{trainer.iter}")

    train(root / "output", shapes, after_step=copy)
    return root


@pytest.fixture
def resume(undisturbed, shapes, tmp_path):
    """Function: iteration, change of the folder, settings -> trainer that resumed the run killed after this iteration;
    its last checkpoint is compared with that of the whole run."""

    def run(iteration, change=lambda folder: None, **settings):
        folder = shutil.copytree(undisturbed / f"after_{iteration}", tmp_path / "output")
        change(folder)
        trainer = train(folder, shapes, "--resume", **settings)
        assert_same(undisturbed / "output", folder)
        return trainer

    return run


def assert_same(first, second):
    values, different = compare(first / "model_final.pth", second / "model_final.pth")
    assert values > 300 and different == 0


@pytest.mark.parametrize("iteration, workers", [(3, 0), (5, 2), (7, 0), (10, 2)])
def test_a_run_killed_after_any_iteration_resumes_to_the_same_weights(
    resume, undisturbed, tmp_path, iteration, workers
):
    """After 3 and 7 there have just been a checkpoint and an evaluation. After 5 and 10 the resumed run makes up for
    the evaluation of its checkpoint, so its best checkpoint is that of the undisturbed run, too."""
    trainer = resume(iteration, **{"DATALOADER.NUM_WORKERS": workers})

    best = [torch.load(root / "output/model_best.pth", weights_only=True) for root in (undisturbed, tmp_path)]
    iterations = {checkpoint["iteration"] for checkpoint in best}
    assert iterations == {trainer.state_dict()["hooks"]["KeepBest"]["best_iter"]}


def test_a_damaged_newest_checkpoint_costs_only_a_few_iterations(resume):
    trainer = resume(9, lambda folder: os.truncate(folder / "model_0000007.pth", 5000))

    assert trainer.start_iter == 4


def test_a_random_seed_is_resumed_from_the_checkpoint(shapes, tmp_path):
    settings = {"SEED": -1, "DATASETS.TEST": "()"}
    train(tmp_path, shapes, **settings, **{"SOLVER.MAX_ITER": 2})
    seed = torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]["seed"]

    trainer = train(tmp_path, shapes, "--resume", **settings, **{"SOLVER.MAX_ITER": 3})

    assert trainer.loader.seed == seed and trainer.loader.first == 2


def test_a_stop_signal_ends_the_run_after_the_step_with_a_checkpoint(undisturbed, shapes, tmp_path):
    flags = []
    for number, iteration in ((signal.SIGTERM, 4), (signal.SIGUSR1, 8)):
        handler = signal.getsignal(number)

        def send(trainer, number=number, iteration=iteration):
            if trainer.iter == iteration:
                os.kill(os.getpid(), number)

        trainer = train(tmp_path, shapes, *flags, after_step=send)

        assert trainer.iter == iteration + 1 and not trainer.finished
        assert (tmp_path / "last_checkpoint").read_text() == f"model_{iteration + 1:07d}.pth"
        assert signal.getsignal(number) is handler
        flags = ["--resume"]

    train(tmp_path, shapes, *flags)
    assert_same(undisturbed / "output", tmp_path)


def test_a_finished_run_that_is_resumed_changes_nothing(undisturbed, shapes, tmp_path):
    folder = shutil.copytree(undisturbed / "output", tmp_path / "output")

    train(folder, shapes, "--resume")

    assert (folder / "model_final.pth").read_bytes() == (undisturbed / "output/model_final.pth").read_bytes()


def test_two_killed_processes_resume_to_the_same_weights(tmp_path):
    """One round of the soak test: seed 9 kills a process after 1.4 seconds. See docs/reliability.md for a long run."""
    result = soak(tmp_path / "soak", rounds=1, processes=2, iterations=30, cut_every=0, seed=9)

    assert result["rounds"] >= 1 and result["launcher"] + result["process"] >= 1
    assert result["values"] > 300 and result["different"] == 0
    assert not list((tmp_path / "soak/disturbed").glob(".*")), "no file that was half written"
