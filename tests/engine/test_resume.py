"""A run that was interrupted ends with the weights of one that was not, to the last bit."""

import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, default_argument_parser

import train_net
from soak import compare, soak
from tests.helpers import DEMO_CONFIG, TINY, pairs

pytestmark = pytest.mark.slow

SETTINGS = {
    **TINY, "SOLVER.MAX_ITER": 12, "SOLVER.CHECKPOINT_PERIOD": 4, "SOLVER.EMA_DECAY": 0.9, "TEST.EVAL_PERIOD": 4,
    "TEST.KEEP_BEST": True, "INPUT.MIN_SIZE_TRAIN": "(96, 128)", "MODEL.ATSS.SCORE_THRESH_TEST": 0.001,
}  # fmt: skip


class Interrupted(BaseException):
    """Stands in for the end of the process: no hook of the trainer may run."""


class Interrupt(HookBase):
    def __init__(self, at, what):
        self.at, self.what = at, what

    def after_step(self):
        if self.trainer.iter == self.at:
            self.what(self.trainer)


def train(folder, datasets, *flags, at=None, what=None, **settings):
    """Train into a folder; `what` happens behind all other hooks of iteration `at`. Returns the trainer."""
    trainers = []

    class Trainer(train_net.Trainer):
        interrupted = False

        def __init__(self, cfg):
            super().__init__(cfg)
            self.register_hooks([Interrupt(at, what)])
            trainers.append(self)

        def after_train(self):
            if not self.interrupted:
                super().after_train()

    options = {**SETTINGS, **datasets, "OUTPUT_DIR": folder, **settings}
    arguments = ["--config-file", DEMO_CONFIG, *flags, *pairs(options)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_net, "Trainer", Trainer)
        patch.setattr(train_net, "report", lambda folder: None)
        train_net.main(default_argument_parser().parse_args(arguments))
    return trainers[0]


@pytest.fixture
def run(shapes, tmp_path):
    return lambda *flags, **options: train(tmp_path / "disturbed", shapes, *flags, **options)


def interrupt(trainer):
    trainer.interrupted = True
    raise Interrupted


@pytest.fixture(scope="module")
def undisturbed(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, shapes)
    return folder / "model_final.pth"


def final(tmp_path):
    return tmp_path / "disturbed/model_final.pth"


def assert_same(first, second):
    values, different = compare(first, second)
    assert values > 300 and different == 0


@pytest.mark.parametrize("at, workers", [(3, 0), (5, 2), (7, 0), (10, 2)])
def test_ended_at_any_iteration(run, undisturbed, tmp_path, at, workers):
    """3 and 7 have just been saved and evaluated."""
    with pytest.raises(Interrupted):
        run(at=at, what=interrupt)

    run("--resume", **{"DATALOADER.NUM_WORKERS": workers})

    assert_same(undisturbed, final(tmp_path))


def test_without_a_seed_the_order_goes_on_too(run, tmp_path):
    """The seed was drawn, and is in the checkpoint."""
    with pytest.raises(Interrupted):
        run(at=5, what=interrupt, SEED=-1)
    first = torch.load(tmp_path / "disturbed/model_0000003.pth", weights_only=True)["trainer"]["seed"]

    trainer = run("--resume", SEED=-1)

    assert trainer.loader.seed == first and trainer.loader.first == 4


def test_the_evaluation_after_the_checkpoint_is_made_up_for(run, undisturbed, tmp_path):
    """The checkpoint was written before it: the best one is that of the undisturbed run all the same."""
    with pytest.raises(Interrupted):
        run(at=5, what=interrupt)

    trainer = run("--resume")

    assert_same(undisturbed, final(tmp_path))
    best = [torch.load(path.parent / "model_best.pth", weights_only=True) for path in (undisturbed, final(tmp_path))]
    assert best[0]["iteration"] == best[1]["iteration"] == trainer.state_dict()["hooks"]["KeepBest"]["best_iter"]


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_it_writes_a_checkpoint_and_ends(run, undisturbed, tmp_path, notice):
    before = signal.getsignal(notice)

    trainer = run(at=4, what=lambda trainer: os.kill(os.getpid(), notice))

    assert trainer.iter == 5 and not trainer.finished, "the step that it was in ends"
    assert (tmp_path / "disturbed/last_checkpoint").read_text() == "model_0000005.pth"
    assert signal.getsignal(notice) is before
    run("--resume")
    assert_same(undisturbed, final(tmp_path))


def test_a_damaged_newest_checkpoint_costs_a_few_iterations_alone(run, undisturbed, tmp_path):
    with pytest.raises(Interrupted):
        run(at=9, what=interrupt)
    os.truncate(tmp_path / "disturbed/model_0000007.pth", 5000)

    trainer = run("--resume")

    assert trainer.start_iter == 4
    assert_same(undisturbed, final(tmp_path))


def test_resumed_after_its_end_it_evaluates_and_changes_nothing(run, tmp_path):
    run()
    before = final(tmp_path).read_bytes()

    run("--resume")

    assert final(tmp_path).read_bytes() == before


def test_killed_in_two_processes(tmp_path):
    """The soak test, small: see docs/reliability.md for a long one."""
    result = soak(tmp_path / "soak", rounds=1, processes=2, iterations=50, cut_every=0)

    assert result["rounds"] >= 1 and result["launcher"] + result["process"] >= 1
    assert result["values"] > 300 and result["different"] == 0
    assert not list(Path(tmp_path / "soak/disturbed").glob(".*")), "no file that was half written"
