"""The benchmark of tiles on small images: it trains both models, and tests them in all ways."""

import pytest

import tiles
from tests.helpers import TINY, pairs


@pytest.mark.slow
def test_both_models_are_tested_whole_and_in_tiles(tmp_path, capsys):
    sizes = ["--side", "200", "--images", "1", "1", "--size", "160", "--iterations", "1", "--output", str(tmp_path)]
    tiny = pairs({**TINY, "SOLVER.IMS_PER_BATCH": 1})

    rows = tiles.main(tiles.get_parser().parse_args([*sizes, *tiny]))

    assert [row[0] for row in rows] == ["whole", "tiles", "tiles", "tiles", "tiles"]
    assert all(row[-1] > 0 for row in rows)
    assert len(list((tmp_path / "tiles/train").iterdir())) == 4
    assert "seconds per image" in capsys.readouterr().out
