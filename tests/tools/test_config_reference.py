"""docs/config.md says of every key what config.py says."""

import re

import pytest
from detectron2.config import CfgNode, get_cfg

import config_reference
from atss import add_atss_config
from atss.config.yaml_file import flat
from atss.errors import InputError
from tests.helpers import ROOT, error_line, run_forked


def add_keys(cfg):
    """Keys in the style of config.py."""
    cfg.MODEL.NEW = new = CfgNode()

    # Colours, by name: "red" or "blue" of each cell; a|b * c.
    new.COLORS = ["red"]
    new.MIXED = 0.5

    # Where it ends.
    new.RANGES = [[0, float("inf")]]
    # And whether.
    cfg.TEST.ENDS = True
    cfg.TEST.DEEP = CfgNode()
    # Long
    # comments go over lines, and values do, too (0.25 say).
    cfg.TEST.DEEP.VALUES = [
        1,  # not this
        2,
    ]


def add_in_a_loop(cfg):
    for name in "AB":
        cfg.MODEL[name] = 1


def change_a_default_in_a_call(cfg):
    # Larger.
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 3])


def test_the_page_is_current_has_every_key_once_and_links_to_its_source():
    cfg = get_cfg()
    before = dict(flat(cfg))
    add_atss_config(cfg)
    added = dict(flat(cfg)).keys() - before.keys()

    page = config_reference.reference(add_atss_config)

    assert (ROOT / "docs/config.md").read_text() == page
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    keys = re.findall(r"`([\w.]+)`", "".join(rows))
    assert len(added) > 40 and added <= set(keys) and len(set(keys)) == len(keys)
    for link in re.findall(r"\]\((?!https)([^)]+)\)", page):
        assert (ROOT / "docs" / link).is_file(), link


def test_a_group_is_a_section_and_a_comment_a_row():
    page = config_reference.reference(add_keys)

    assert page.split("\n## ", 1)[1] == (
        "Colours\n\n| key | type | default | |\n| --- | --- | --- | --- |\n"
        '| `MODEL.NEW.COLORS`<br>`MODEL.NEW.MIXED` | `list`<br>`float` | `["red"]`<br>`0.5` '
        '| Colours, by name: "red" or "blue" of each cell; a\\|b \\* c. |\n'
        "\n## Where it ends\n\n| key | type | default | |\n| --- | --- | --- | --- |\n"
        "| `MODEL.NEW.RANGES` | `list` | `[[0, .inf]]` | Where it ends. |\n"
        "| `TEST.ENDS` | `bool` | `True` | And whether. |\n"
        "| `TEST.DEEP.VALUES` | `list` | `[1, 2]` | Long comments go over lines, and values do, too (0.25 say). |\n"
    )


@pytest.mark.parametrize("add, key", [(add_in_a_loop, "MODEL.A"), (change_a_default_in_a_call, "SOLVER.IMS_PER_BATCH")])
def test_a_key_that_is_set_in_another_way_is_named(add, key):
    with pytest.raises(InputError, match=re.escape(key)):
        config_reference.reference(add)


def test_check_says_where_the_page_is_old_or_missing(tmp_path):
    page = tmp_path / "config.md"

    def write(*flags):
        config_reference.main(config_reference.get_parser().parse_args(["--output", str(page), *flags]))

    with pytest.raises(InputError, match=re.escape(str(page))):
        write("--check")
    write()
    write("--check")
    assert page.read_text() == config_reference.reference(add_atss_config)
    page.write_text(page.read_text() + "more")
    with pytest.raises(InputError, match="not current"):
        write("--check")
    assert page.read_text().endswith("more"), "--check writes nothing"


@pytest.mark.slow
def test_from_the_command_line_an_old_page_is_one_line(tmp_path):
    assert "not current" in error_line(
        run_forked("tools/config_reference.py", "--check", "--output", tmp_path, check=False)
    )
