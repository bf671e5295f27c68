"""The trainer as a whole: what it stores, and in which precision it trains."""

import json

import pytest
import torch

from atss.data.mapper import BoxDatasetMapper
from tests.helpers import SHORT, train

pytestmark = pytest.mark.slow

NAMES = ("total_loss", "loss_cls", "loss_box", "loss_centerness")


@pytest.fixture
def settings(shapes, tmp_path):
    return {**SHORT, **shapes, "OUTPUT_DIR": tmp_path, "DATASETS.TEST": "()", "SOLVER.MAX_ITER": 30}


def losses_of(trainer):
    """By name, then by iteration."""
    return {name: {i: v for v, i in trainer.storage.history(name).values()} for name in NAMES}


def test_every_iteration_has_its_losses_and_metrics_are_medians_at_the_end_of_a_period(settings, tmp_path):
    trainer = train(settings)

    losses = losses_of(trainer)
    assert all(list(by_iteration) == list(range(30)) for by_iteration in losses.values())
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "total_loss" in row] == [19, 29]
    for row, window in zip(rows, (range(20), range(10, 30)), strict=False):
        for name in NAMES:
            assert row[name] == pytest.approx(torch.tensor([losses[name][i] for i in window]).quantile(0.5).item())
        assert {"time", "data_time", "lr"} <= row.keys()


def test_bfloat16_trains_on_a_cpu_as_float32_does(settings, tmp_path):
    settings = {**settings, "SOLVER.MAX_ITER": 10}
    expected = losses_of(train({**settings, "OUTPUT_DIR": tmp_path / "float32"}))

    amp = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.PRECISION": "bfloat16"}
    trainer = train({**settings, **amp})

    found = losses_of(trainer)
    assert found != expected
    for name in NAMES:
        ours, theirs = (torch.tensor(list(losses[name].values())) for losses in (found, expected))
        assert len(ours) == 10 and torch.allclose(ours[:5], theirs[:5], rtol=0.02), name
        assert torch.allclose(ours.mean(), theirs.mean(), rtol=0.1), name
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["trainer"]["_trainer"]["grad_scaler"] == {}


def test_an_image_that_makes_the_loss_not_finite_is_found_and_named(settings, tmp_path, monkeypatch, capsys):
    """In iteration 4; the host reads it with the checkpoint of iteration 7, which is then not written."""
    loader = train({**settings, "SOLVER.MAX_ITER": 1}).loader
    order = [[record["file_name"] for record in loader.batch(number)] for number in range(5)]
    bad = next(name for name in order[4] if all(name not in batch for batch in order[:4]))
    call = BoxDatasetMapper.__call__

    def map_image(mapper, record):
        mapped = call(mapper, record)
        return {**mapped, "image": mapped["image"] * torch.inf} if record["file_name"] == bad else mapped

    monkeypatch.setattr(BoxDatasetMapper, "__call__", map_image)

    with pytest.raises(SystemExit):
        train({**settings, "SOLVER.CHECKPOINT_PERIOD": 4, "OUTPUT_DIR": tmp_path / "out"})

    assert [path.name for path in (tmp_path / "out").glob("model_*.pth")] == ["model_0000003.pth"]
    saved = torch.load(tmp_path / "out/skipped_batches/iteration_0000004_process_0.pth", weights_only=True)
    assert [record["file_name"] for record in saved["batch"]] == order[4]
    assert [record["file_name"] for record in saved["batch"] if not record["image"].isfinite().all()] == [bad]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "iteration 4: the loss or its gradient is not finite" in line and bad in line
