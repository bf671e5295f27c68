"""The command `atss`, also installed without the checkout."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import atss_cli
from tests.helpers import ROOT


def test_the_help_lists_all_commands_and_imports_neither_torch_nor_the_package():
    code = "import sys, atss_cli; atss_cli.main(['--help']); assert not {'torch', 'atss'} & set(sys.modules)"

    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert printed.startswith("usage: atss COMMAND")
    for name in ("train", "eval", "predict", "check", "export", "convert", "report", "study"):
        assert re.search(rf"^  {name} +\S", printed, re.M)


def test_without_a_command_it_prints_the_help(capsys):
    atss_cli.main([])
    assert capsys.readouterr().out.startswith("usage: atss COMMAND")


@pytest.mark.parametrize("name, hint", [("trian", "did you mean train?"), ("x", "there are train, eval, predict")])
def test_an_unknown_command_is_refused_in_one_line(capsys, name, hint):
    with pytest.raises(SystemExit) as ended:
        atss_cli.main([name])

    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: atss has no command {name!r}; {hint}")


@pytest.mark.parametrize("name", [name for name in atss_cli.COMMANDS if name != "eval"])
def test_every_command_shows_its_arguments_under_its_own_name(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["atss"])
    with pytest.raises(SystemExit) as ended:
        atss_cli.main([name, "--help"])

    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"usage: atss {name} ")


def test_eval_evaluates(monkeypatch):
    given = []
    monkeypatch.setattr("atss.commands.train.run", given.append)
    monkeypatch.setattr(sys, "argv", ["atss"])

    atss_cli.main(["eval", "--config-file", "config.yaml"])

    assert given == [["--eval-only", "--config-file", "config.yaml"]]


@pytest.mark.slow
def test_installed_it_has_its_commands_and_the_configs(tmp_path):
    """`pip install .`, into a folder of its own, and then without the checkout."""
    source, installed = tmp_path / "source", tmp_path / "installed"
    for folder in ("projects", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", installed, source], check=True)
    shutil.rmtree(source)

    def run(*command):
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    assert run(installed / "bin/atss", "--version").startswith("atss 0.")
    code = """if True:
    import atss
    from atss.config import load_config
    print(atss.__file__, load_config("atss_R_50_FPN_1x.yaml", ["MODEL.ATSS.NUM_CLASSES", "3", "DATASETS.TRAIN", "()",
        "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu"]).MODEL.ATSS.ASSIGNER)
    """
    assert run(sys.executable, "-c", code) == f"{installed}/atss/__init__.py ATSSAssigner\n"
    shipped = {path.name for path in (installed / "atss/configs").iterdir()}
    assert shipped == {path.name for path in (ROOT / "configs").iterdir()}
