"""The commands' entry points: hostile input goes in through the real command, one line of error must come out."""

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from atss.commands import check, convert, predict, train
from atss.config import load_config, parse_with_opts
from atss.data import catalog
from atss.errors import one_line_errors
from tests.helpers import DEMO_CONFIG, TINY, pairs


@pytest.fixture(scope="session")
def weights(tmp_path_factory, shapes):
    """Path of a good checkpoint of the tiny model."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = build_model(load_config(DEMO_CONFIG, pairs({**TINY, **shapes})))
    DetectionCheckpointer(model, str(folder)).save("model")
    return str(folder / "model.pth")


@dataclass
class Doors:
    """Calls commands as their users do, in this process, and sees what they leave behind."""

    capsys: pytest.CaptureFixture
    marker: Path  # file that payloads make when they run
    folders: list  # the working folder and that for temporary files, both empty
    output: Path  # folder that is not there
    shapes: dict
    weights: str

    def refused(self, call, has_begun=False):
        """The one line of error that a command, a function without arguments, ends with.

        If it may have begun to write, there is no checkpoint and no drawn image.
        """
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended, one_line_errors(), warnings.catch_warnings():
            warnings.simplefilter("error")  # they would be more lines
            warnings.filterwarnings("ignore", module="torch|detectron2|fvcore")
            call()
        out, err = self.capsys.readouterr()
        assert ended.value.code not in (0, None)
        assert "Traceback" not in out + err, out + err
        # One of torch's, once a process, where there is no GPU.
        lines = [line for line in err.strip().splitlines() if "No CUDA runtime is found" not in line]
        assert len(lines) == 1 and lines[0].startswith("error: "), err
        assert len(lines[0]) < 10_000
        self.nothing_left(has_begun)
        return lines[0]

    def nothing_left(self, has_begun=False):
        assert not self.marker.exists(), "code of the input has run"
        for folder in self.folders:
            assert os.listdir(folder) == []
        if has_begun:
            written = [name for _, _, names in os.walk(self.output) for name in names]
            assert not [name for name in written if name.endswith((".pth", ".png", ".jpg"))], written
        else:
            assert not self.output.exists() or not list(self.output.iterdir())

    def train(self, settings, *flags, config=DEMO_CONFIG, data=True, has_begun=False):
        """The error line of train_net.py."""
        settings = {**TINY, **(self.shapes if data else {}), "OUTPUT_DIR": self.output, **settings}
        parser = default_argument_parser()
        arguments = ["--config-file", str(config), *flags, *pairs(settings)]
        return self.refused(lambda: train.main(parser.parse_args(arguments)), has_begun)

    def convert(self, path, *arguments):
        """The error line of tools/convert.py."""
        arguments, parser = [str(path), "--output", str(self.output), *arguments], convert.get_parser()
        return self.refused(lambda: convert.main(parse_with_opts(parser, arguments)))

    def check(self, *arguments):
        """What tools/check_dataset.py says of a dataset that it refuses, on both streams."""
        self.capsys.readouterr()
        parser = check.get_parser()
        with pytest.raises(SystemExit) as ended, one_line_errors():
            raise SystemExit(check.main(parse_with_opts(parser, list(map(str, arguments)))))
        out, err = self.capsys.readouterr()
        assert ended.value.code == 1 and "Traceback" not in out + err, out + err
        self.nothing_left()
        return out + err

    def demo(self, path, **settings):
        """The error line of demo/demo.py, and what it says before."""
        settings = {**TINY, **self.shapes, "MODEL.WEIGHTS": self.weights, **settings}
        arguments = ["--config-file", DEMO_CONFIG, "--input", str(path), "--output", str(self.output), "--opts"]
        arguments += pairs(settings)
        return self.refused(lambda: predict.main(predict.get_parser().parse_args(arguments)), has_begun=True)


@pytest.fixture
def doors(tmp_path, monkeypatch, capsys, shapes, weights):
    folders = [tmp_path / "cwd", tmp_path / "temp"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    monkeypatch.setattr(tempfile, "tempdir", str(folders[1]))
    # Made once in a process, when it is first needed.
    monkeypatch.setattr(catalog, "temporary_folder", lambda: str(tmp_path))
    registered = set(DatasetCatalog.list())
    yield Doors(capsys, tmp_path / "code_has_run", folders, tmp_path / "output", shapes, weights)
    # They keep the streams of this test.
    setup_logger.cache_clear()
    for name in ("atss", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()
    for name in set(DatasetCatalog.list()) - registered:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
