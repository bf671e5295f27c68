import csv
import math

from atss.study.report import write_report
from atss.study.tables import TABLES

FIGURES = {"AP": 40.0, "AP50": 60.0, "AP75": 41.0, "APs": 20.0, "APm": 44.0, "APl": math.nan, "positives": 8.25}


def written(tmp_path, number, results):
    write_report(TABLES[number], results, "tiny.yaml on cells, 5 iterations.", tmp_path)
    return (tmp_path / f"table-{number}.md").read_text()


def test_means_and_standard_deviations_over_the_seeds_beside_the_papers_ap(tmp_path):
    results = [{1: FIGURES, 2: {**FIGURES, "AP": 42.0}, 3: {**FIGURES, "AP": 44.0}}, {1: FIGURES}, {}, {}]

    text = written(tmp_path, 2, results)

    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "AP", "AP50", "AP75", "APs", "APm", "APl", "positives per object", "AP in the paper"]
    assert rows[2][:3] == ["IoU, from a box", "42.0 ± 2.0", "60.0 ± 0.0"] and rows[2][-1] == "37.0"
    assert rows[3] == ["IoU, from a point", "40.0", "60.0", "41.0", "20.0", "44.0", "-", "8.2", "36.9"]
    assert rows[4][1:-1] == ["-"] * 7, "not run yet"
    assert "tiny.yaml on cells, 5 iterations." in text


def test_the_csv_has_a_line_a_row_and_seed_in_full_precision(tmp_path):
    written(tmp_path, 2, [{2: FIGURES, 1: {**FIGURES, "AP": 41.23456789}}, {}, {}, {}])

    lines = list(csv.DictReader((tmp_path / "table-2.csv").read_text().splitlines()))

    found = [(line["row"], line["seed"], line["AP"]) for line in lines]
    assert found == [("IoU, from a box", "1", "41.23456789"), ("IoU, from a box", "2", "40.0")]
    assert lines[0]["positives"] == "8.25" and lines[0]["paper AP"] == "37.0"


def test_curves_are_plotted_as_far_as_they_have_come(tmp_path):
    none, some = [{} for _ in range(9)], [{1: FIGURES, 2: FIGURES}, {}, {1: FIGURES}, *({} for _ in range(6))]

    written(tmp_path, 4, none)
    assert not (tmp_path / "table-4.png").exists()
    written(tmp_path, 4, some)
    assert (tmp_path / "table-4.png").read_bytes().startswith(b"\x89PNG")
    written(tmp_path, 3, [{1: FIGURES}] * 5)
    assert not (tmp_path / "table-3.png").exists(), "Table 3 is no curve"
