"""Checkpoints after crashes, on full disks and in damaged files."""

import errno
import os
import random
import re
import zipfile
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from atss.checkpoints import Checkpointer, newest
from atss.checkpoints.files import damage, write_whole
from atss.errors import InputError
from tests.helpers import file_size_limit


@pytest.fixture
def checkpointer(tmp_path):
    return Checkpointer(nn.Linear(30, 30), str(tmp_path), trainer=Mock(state_dict=lambda: {"iteration": 7}))


def save(checkpointer, *iterations):
    for i in iterations:
        with torch.no_grad():
            checkpointer.model.weight.fill_(i)
        checkpointer.save(f"model_{i:07d}", iteration=i)
        os.utime(os.path.join(checkpointer.save_dir, f"model_{i:07d}.pth"), (i, i))


def fail(file):
    file.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_whole(str(path), lambda file, content=content: file.write(content))
        assert path.read_bytes() == content and os.listdir(tmp_path) == ["file"]

    with pytest.raises(InputError, match=r"file: cannot be written \(No space left on device\)"):
        write_whole(str(path), fail)

    assert path.read_bytes() == b"second" and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_keeps_the_previous_checkpoint(checkpointer, tmp_path):
    save(checkpointer, 1)
    with (
        file_size_limit(2000),
        pytest.raises(InputError, match=r"model_0000002\.pth: cannot be written \(File too large\)"),
    ):
        save(checkpointer, 2)

    assert newest(tmp_path) == f"{tmp_path}/model_0000001.pth" and damage(newest(tmp_path)) is None
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_never_written(checkpointer, tmp_path, number):
    save(checkpointer, 1)
    with torch.no_grad():
        checkpointer.model.bias[3] = number

    with pytest.raises(InputError, match=r"model_0000002\.pth: not written, because bias holds numbers"):
        checkpointer.save("model_0000002")

    assert newest(tmp_path).endswith("model_0000001.pth")


@pytest.mark.parametrize("seed", range(20))
def test_of_a_truncated_checkpoint_the_previous_one_is_used(checkpointer, tmp_path, caplog, seed):
    save(checkpointer, 1, 2, 3)
    path = tmp_path / "model_0000003.pth"
    os.truncate(path, random.Random(seed).randrange(path.stat().st_size))

    checkpointer.resume_or_load("", resume=True)

    assert checkpointer.model.weight.unique().item() == 2
    checkpointer.checkpointables["trainer"].load_state_dict.assert_called_once_with({"iteration": 7})
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "model_0000003.pth is damaged" in line and line.endswith("model_0000002.pth.")


@pytest.mark.parametrize("seed", range(10))
def test_a_changed_byte_is_detected_by_its_checksum(checkpointer, tmp_path, seed):
    save(checkpointer, 1, 2)
    path = tmp_path / "model_0000002.pth"
    content = bytearray(path.read_bytes())
    weights = content.find(torch.full((30, 30), 2.0).numpy().tobytes())
    content[weights + random.Random(seed).randrange(3600)] ^= 1
    path.write_bytes(content)

    assert "checksum" in damage(path) and newest(tmp_path).endswith("model_0000001.pth")


def test_a_changed_compression_method_is_damage(checkpointer, tmp_path):
    save(checkpointer, 1, 2)
    path = tmp_path / "model_0000002.pth"
    content = bytearray(path.read_bytes())
    for entry in re.finditer(b"PK\x01\x02", content):
        content[entry.start() + 10] = zipfile.ZIP_DEFLATED
    path.write_bytes(content)

    assert damage(path) and newest(tmp_path).endswith("model_0000001.pth")


def test_training_does_not_restart_if_all_checkpoints_are_damaged(checkpointer, tmp_path):
    save(checkpointer, 1, 2)
    for path in tmp_path.glob("*.pth"):
        path.write_bytes(b"")

    with pytest.raises(InputError, match=r"model_0000002.*model_0000001.*no checkpoint is left"):
        checkpointer.resume_or_load("", resume=True)


def test_checkpoints_of_an_earlier_run_are_not_resumed(checkpointer, tmp_path):
    """They are of later iterations than the damaged one, and the best one may be of any."""
    save(checkpointer, 9, 3, 5)
    checkpointer.save("model_best", iteration=3)
    os.utime(tmp_path / "model_0000009.pth", (4, 4))
    (tmp_path / "model_0000005.pth").write_bytes(b"")

    assert newest(tmp_path).endswith("model_0000003.pth") and (tmp_path / "model_best.pth").exists()


def test_without_a_name_in_last_checkpoint_the_latest_is_used(checkpointer, tmp_path):
    assert newest(tmp_path) is None and newest(tmp_path / "nowhere") is None
    save(checkpointer, 1, 2)
    (tmp_path / "last_checkpoint").write_bytes(b"")

    assert newest(tmp_path).endswith("model_0000002.pth")


def test_last_checkpoint_cannot_name_a_file_outside_of_the_folder(checkpointer, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    save(checkpointer, 1)
    (folder / "last_checkpoint").write_text("../model_0000001.pth")

    with pytest.raises(InputError, match=r"run/model_0000001\.pth is damaged"):
        newest(folder)


def test_partial_files_of_a_killed_process_are_removed_when_training_starts_again(checkpointer, tmp_path):
    (tmp_path / ".model_0000001.pth.draft").write_bytes(b"half")

    Checkpointer(nn.Linear(3, 3), str(tmp_path)).resume_or_load("", resume=True)
    assert os.listdir(tmp_path) == [".model_0000001.pth.draft"], "an evaluation during training does not touch it"
    checkpointer.resume_or_load("", resume=True)
    assert os.listdir(tmp_path) == []
