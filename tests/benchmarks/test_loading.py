"""The comparison of mappers times every stage of each, on the same images."""

import json

import pytest

import loading


def test_every_mapper_and_every_stage(tmp_path, capsys):
    path = tmp_path / "medians.json"
    opts = ["INPUT.MIN_SIZE_TRAIN", "(96,)"]
    loading.main(loading.get_parser().parse_args(["--generate", "2", "--rounds", "2", "--json", str(path), *opts]))

    results = json.loads(path.read_text())["results"]
    assert list(results) == ["Detectron2", "pillow", "torch"]
    for by_stage in results.values():
        assert by_stage.keys() == {*loading.STAGES, "total"} and all(ms > 0 for ms in by_stage.values())
    printed = capsys.readouterr().out
    assert "2 images, 2 rounds" in printed and "images/s" in printed


def test_stages_add_up_to_the_whole(tmp_path):
    records = loading.generate(tmp_path, 3)
    cfg = loading.load_config(str(loading.CONFIG), [*loading.WITHOUT_DATASETS, "INPUT.MIN_SIZE_TRAIN", "(96,)"])

    for contender in loading.contenders(cfg).values():
        by_stage = contender.run(records, seed=0)
        assert sum(by_stage[stage] for stage in loading.STAGES) == pytest.approx(by_stage["total"])
