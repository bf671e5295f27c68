"""A training step that does not change the weights if something fails."""

import os
from functools import partial

import pytest
import torch
from torch import multiprocessing

from atss.errors import AgreedError, InputError
from tests.engine.toy import image, make_step, train
from tests.processes import train_in_process

FLOAT16 = {"SOLVER.AMP.ENABLED": True}  # on the CPU, too: the scaler is the same
BFLOAT16 = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.PRECISION": "bfloat16"}
MOMENTUM = {torch.optim.SGD: {"momentum": 0.9}}


@pytest.fixture
def training(tmp_path):
    """Function: images or their names, settings -> a step with a batch per image; its `run` trains on all."""

    def make(images, max_skipped=0, max_unreadable=0, settings=None, **options):
        limits = {"SOLVER.MAX_SKIPPED_BATCHES": max_skipped, "DATALOADER.MAX_UNREADABLE": max_unreadable}
        step = make_step(tmp_path, images, {**limits, **(settings or {})}, **options)
        step.run = lambda: train(step)
        return step

    return make


def assert_steps(step, number):
    """Assert that the weights have changed `number` times."""
    assert torch.allclose(step.model.weight, torch.full((3,), 1 - 0.3 * number))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_step_changes_the_weights_and_stores_the_losses(training):
    step = training(["a.png", "b.png"])

    storage = step.run()

    assert_steps(step, 2)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest.keys() == {"data_time", "total_loss", "loss_cls", "loss_box"}
    assert latest["total_loss"] == pytest.approx(latest["loss_cls"] + latest["loss_box"]) == pytest.approx(3 * 2.1)


@pytest.mark.parametrize("name, value", [("nan.png", "loss_cls nan"), ("steep.png", "gradient inf")])
def test_training_ends_before_a_gradient_that_is_not_finite_changes_the_weights(training, tmp_path, name, value):
    step = training(["a.png", name])

    with pytest.raises(InputError) as caught:
        step.run()

    message = str(caught.value)
    assert "iteration 1: the loss or its gradient is not finite" in message and value in message
    assert name in message and "SOLVER.MAX_SKIPPED_BATCHES" in message and "\n" not in message
    assert_steps(step, 1)
    (kept,) = (tmp_path / "skipped_batches").iterdir()
    saved = torch.load(kept, weights_only=True)
    assert saved["batch"][0]["file_name"] == name and saved["batch"][0]["boxes"].tolist() == [[0, 1, 2, 3]]
    assert saved["batch"][0]["image"].shape == (3, 4, 5)


def test_as_many_batches_as_allowed_are_skipped(training, caplog):
    step = training(["a.png", "nan.png", "a.png", "steep.png", "a.png"], max_skipped=2)

    storage = step.run()

    assert_steps(step, 3)
    assert step.skipped == 2 == step.state_dict()["skipped_batches"]
    assert all(value[0] == value[0] for value in storage.latest().values()), "no NaN in the curves"
    assert len(warnings(caplog)) == 2 and warnings(caplog)[1].endswith("The batch is skipped (2 so far).")


def test_losses_are_stored_under_the_iterations_that_they_are_of(training):
    """Once in 20 iterations, where evaluations, checkpoints and images need them, and at the end."""
    step = training(["a.png"] * 45, settings={"TEST.EVAL_PERIOD": 15, "SOLVER.CHECKPOINT_PERIOD": 16, "VIS_PERIOD": 34})
    read, stored = [], {}
    step.read = lambda: (read.append(step.iter + 1), type(step).read(step))

    storage = step.run()

    assert read == [15, 16, 20, 30, 32, 34, 40, 45]
    stored = {iteration: value for value, iteration in storage.history("loss_cls").values()}
    assert stored == pytest.approx({iteration: 3 - 0.9 * iteration for iteration in range(45)}, rel=1e-5)
    assert storage.iter == 44 and storage.latest()["total_loss"][1] == 44


def test_no_step_changes_the_weights_between_the_excess_batch_and_its_reading(training, tmp_path):
    step = training(["a.png"] * 3 + ["nan.png"] + ["a.png"] * 2 + ["nan.png"] + ["a.png"] * 33, max_skipped=1)

    with pytest.raises(AgreedError, match=r"^iteration 6: .*nan\.png"):
        step.run()

    assert step.iter == 19, "the host has read what happened in 20 iterations"
    assert_steps(step, 5)
    assert len(os.listdir(tmp_path / "skipped_batches")) == 2
    with pytest.raises(InputError, match="iteration 19: no checkpoint"):
        step.state_dict()


def test_a_checkpoint_between_two_readings_knows_of_the_batches_skipped_since(training):
    step = training(["a.png", "nan.png", "a.png", "nan.png", "a.png"], max_skipped=1)

    train(step, last=3)
    assert step.skipped == 0 and step.state_dict()["skipped_batches"] == 1
    with pytest.raises(AgreedError, match="iteration 3"):
        train_and_save(step, first=3, last=5)


def train_and_save(step, first, last):
    """A hook of the user's own writes a checkpoint in the last iteration."""
    step.num_iterations = None
    run_step = step.run_step
    step.run_step = lambda: (run_step(), step.iter == last - 1 and step.state_dict())
    train(step, first, last)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize(
    "settings, skipped", [({}, 3), (FLOAT16, 2), (BFLOAT16, 3)], ids=["float32", "float16", "bf16"]
)
def test_a_skipped_batch_leaves_the_state_of_the_optimizer_alone(training, optimizer, settings, skipped):
    """Also that of the first iteration, and in every precision: training is as if the batch had not been there."""
    options = {"settings": settings, "optimizer": partial(optimizer, **MOMENTUM.get(optimizer, {}))}
    skipping = training(["nan.png", "a.png", "nan.png", "steep.png", "a.png"], max_skipped=9, **options)
    plain = training(["a.png", "a.png"], **options)

    skipping.run(), plain.run()

    assert torch.equal(skipping.model.weight, plain.model.weight) and skipping.model.weight.dtype == torch.float32
    ours, theirs = (step.optimizer.state[step.model.weight] for step in (skipping, plain))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert skipping.skipped == skipped, "in float16 a gradient may overflow"


def test_a_gradient_that_overflows_in_float16_lowers_the_scale_and_is_no_skipped_batch(training):
    step = training(["a.png", "steep.png", "a.png"], settings=FLOAT16)

    step.run()

    assert step.skipped == 0
    assert_steps(step, 2)
    assert step.state_dict()["grad_scaler"]["scale"] == 2.0**15


def test_gradients_are_clipped_at_their_true_size_in_float16(training):
    clipped = []

    class Clipping(torch.optim.SGD):
        def step(self, closure=None):
            clipped.append(self.param_groups[0]["params"][0].grad.tolist())
            return super().step(closure)

    training(["a.png"], settings=FLOAT16, optimizer=Clipping).run()

    assert clipped == [[3.0, 3.0, 3.0]]


def test_only_float16_has_a_scaler(training):
    assert training(["a.png"], settings=BFLOAT16).state_dict()["grad_scaler"] == {}


def test_a_resumed_run_counts_the_batches_skipped_before(training):
    first, second = training(["nan.png"], max_skipped=1), training(["a.png", "nan.png"], max_skipped=1)
    first.run()
    state = first.state_dict()
    second.load_state_dict(state)

    with pytest.raises(InputError, match="iteration 1"):
        second.run()
    del state["skipped_batches"]
    second.load_state_dict(state)
    assert second.skipped == 0, "an old checkpoint does not have their number"


def test_a_batch_for_which_memory_does_not_suffice(training):
    step = training(["a.png", "large.png", "a.png"], max_skipped=1)
    step.run()
    assert_steps(step, 2)

    with pytest.raises(InputError, match=r"memory does not suffice for large\.png \(5 x 4, 1 objects\).*IMS_PER_BATCH"):
        training(["large.png"]).run()


def test_memory_that_does_not_suffice_is_counted_with_the_batches_that_are_not_read_yet(training):
    with pytest.raises(AgreedError, match=r"^iteration 3: memory does not suffice"):
        training(["a.png", "nan.png", "a.png", "large.png"], max_skipped=1).run()
    with pytest.raises(AgreedError, match=r"^iteration 3: the loss or its gradient"):
        training(["a.png", "large.png", "a.png", "nan.png", "a.png"], max_skipped=1).run()


def test_a_restarted_run_skips_a_batch_that_was_too_large_for_one_of_several_processes(training, tmp_path, monkeypatch):
    """The others wait for the gradient of that process, so the whole run ends."""
    with monkeypatch.context() as patch:
        patch.setattr("atss.engine.training_step.comm.get_world_size", lambda: 2)
        patch.setattr("atss.engine.training_step.comm.all_gather", lambda value: [value])
        patch.setattr("atss.engine.training_step.dist.all_reduce", lambda *args, **options: None)
        patch.setattr("atss.engine.training_step.object_group", lambda: None)
        with pytest.raises(InputError, match=r"iteration 1, process 0: memory does not suffice.*--resume"):
            training(["a.png", "large.png"]).run()
    assert (tmp_path / "skipped_batches/out_of_memory.txt").read_text() == "1\n"

    again = training(["a.png", "large.png", "a.png"], max_skipped=1)
    again.run()

    assert again.skipped == 1
    assert_steps(again, 2)
    again.skipped_batches.forget_out_of_memory()
    assert os.listdir(tmp_path / "skipped_batches") == []


def test_unreadable_images_are_counted_by_name(training, caplog):
    def with_unusable(*names):
        return image("a.png", unusable=[(name, f"{name}: the image cannot be read") for name in names])

    step = training([with_unusable("x.png"), with_unusable("x.png", "y.png"), with_unusable("z.png")], max_unreadable=2)

    with pytest.raises(InputError, match=r"z\.png: the image cannot be read; 3 images.*MAX_UNREADABLE 2"):
        step.run()

    assert [line.split(":")[0] for line in warnings(caplog)] == ["x.png", "y.png", "z.png"]


def test_a_stop_signal_is_kept(training):
    step = training(["a.png", "a.png", "a.png"], stop_signal_here=iter([None, "SIGUSR1", None]).__next__)

    storage = train(step, last=2)

    assert step.stop_signal == "SIGUSR1"
    assert storage.latest()["total_loss"][1] == 1, "a checkpoint follows"


def test_training_continues_if_a_skipped_batch_cannot_be_written(training, tmp_path, caplog):
    (tmp_path / "skipped_batches/.iteration_0000000_process_0.pth.draft").mkdir(parents=True)

    training(["nan.png"], max_skipped=1).run()

    assert any("cannot be written" in message for message in warnings(caplog))


def test_all_processes_skip_together(tmp_path):
    """A loss is not finite in one of two, and an image is unreadable in the other; both names are known to both."""
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        arguments = (2, str(tmp_path / "store"), str(tmp_path / "output"), results)
        multiprocessing.spawn(train_in_process, arguments, nprocs=2)
        first, second = results[0], results[1]

    assert first["weights"] == second["weights"] == pytest.approx([1 - 0.3 * 3] * 3), "three of four steps"
    assert first["skipped"] == second["skipped"] == 1 and first["unreadable"] == second["unreadable"] == {"gone.png"}
    assert first["stop_signal"] == second["stop_signal"] == "SIGTERM"
    assert first["losses"] == pytest.approx({0: 3.0, 2: 2.1, 3: 1.2}) and second["losses"] == {}, (
        "means, in one process"
    )
    assert os.listdir(tmp_path / "output/skipped_batches") == ["iteration_0000001_process_1.pth"], "of the suspect"
    assert "images nan.png, kept" in first["warnings"]
