"""Config keys, yaml files, command lines, and checks of configs."""

from .checks import check_tiles
from .defaults import add_atss_config
from .load import class_names, load_config, parse_with_opts, wanted_device

__all__ = ["add_atss_config", "check_tiles", "class_names", "load_config", "parse_with_opts", "wanted_device"]
