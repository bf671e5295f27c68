"""The configs that come with the project: in a checkout its folder configs/, installed `atss/configs/`."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
FOLDER = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parents[2] / "configs"


def find_config(config_file: str) -> str:
    """Path of a config file: itself, or where there is no such file the project's config of that name."""
    shipped = FOLDER / config_file
    is_name = config_file == os.path.basename(config_file) and config_file.endswith(".yaml")
    return str(shipped) if is_name and not os.path.exists(config_file) and shipped.is_file() else config_file
