"""The board from results files: order, averages, groups, flags; Markdown, CSV, reported numbers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from board_fixtures import ODD_NAME, ROWS, make_results, scores_of, targets
from scipy.stats import spearmanr

from rali_zoo.bench import check
from rali_zoo.bench.leaderboard import Board, leaderboard
from rali_zoo.bench.markdown import _text, markdown, number, table_csv
from rali_zoo.bench.reported import read_reported
from rali_zoo.bench.schema import read_json
from rali_zoo.errors import ConfigError, ScoreTableError
from rali_zoo.report import write_json

REPORTED = Path(__file__).resolve().parents[2] / "benchmarks" / "reported.yaml"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def board(results: Path) -> Board:
    return leaderboard(results, read_reported(REPORTED))


def row(board: Board, name: str):
    return next(r for r in board.rows if r.model.name == name)


def column(board: Board, key: str):
    return next(c for c in board.columns if c.dataset.key == key)


def test_columns_with_human_scores_come_first(board: Board) -> None:
    assert [(c.dataset.key, c.labels) for c in board.columns] == [
        ("koniq10k", "human"),
        ("livec", "human"),
        ("synthetic-lab", "synthetic"),
    ]


def test_every_model_is_shown_and_reported_ones_are_apart(board: Board) -> None:
    assert {r.model.name for r in board.rows} == {
        "good",
        ODD_NAME,
        "backwards",
        "constant",
        "leaked",
        "failing",
        "gone",
    }
    assert [c.model.name for c in board.reported_cells] == ["From a paper"]


def test_values_are_scipys_and_signed(board: Board) -> None:
    mos = np.array(targets("koniq10k")["mos"])
    for name in ("good", "backwards"):
        expected = spearmanr(scores_of(name, "koniq10k", mos), mos).statistic
        assert row(board, name).cells["koniq10k"].ranking == pytest.approx(expected, abs=1e-5)
    assert row(board, "backwards").cells["koniq10k"].ranking < -0.5


def test_failures_cannot_help(board: Board) -> None:
    cell = row(board, "failing").cells["synthetic-lab"]
    assert cell.failed == 13 and len(cell.failures) == 13
    assert cell.estimate("srcc").value > row(board, "good").cells["synthetic-lab"].estimate("srcc").value
    assert cell.ranking < row(board, "good").cells["synthetic-lab"].ranking
    names = [r.model.name for r in board.rows]
    assert names.index("failing") > names.index("good")


def test_averages(board: Board) -> None:
    good = row(board, "good")
    values = {key: good.cells[key].ranking for key in ("koniq10k", "livec")}
    average = good.averages["human"]
    assert average.mean == pytest.approx(sum(values.values()) / 2)
    weighted = (values["koniq10k"] * ROWS["koniq10k"] + values["livec"] * ROWS["livec"]) / 160
    assert average.weighted == pytest.approx(weighted)
    assert (average.sets, average.of) == (2, 2)
    assert row(board, ODD_NAME).averages["human"].mean is None  # lacks livec


def test_leaked_cells_are_shown_but_not_ranked(board: Board) -> None:
    leaked = row(board, "leaked")
    assert leaked.cells["koniq10k"].estimate("srcc").value > 0.99
    assert leaked.averages["human"].sets == 0
    assert leaked.model.key not in column(board, "koniq10k").best
    assert all(leaked.model.key not in (p.a, p.b) for p in column(board, "koniq10k").pairs)


def test_models_that_cannot_be_told_apart(board: Board) -> None:
    best = column(board, "koniq10k").best
    assert best == {row(board, "good").model.key, row(board, ODD_NAME).model.key}
    pairs = {frozenset((p.a, p.b)): p for p in column(board, "koniq10k").pairs}
    apart = pairs[frozenset((row(board, "good").model.key, row(board, "backwards").model.key))]
    assert apart.p_holm < 0.001 and apart.low > 1
    assert "may not be published" in column(board, "livec").note and not column(board, "livec").best


def test_of_many_models_the_best_are_compared(
    results: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rali_zoo.bench.leaderboard.COMPARED", 2)
    whole, few = column(board, "koniq10k"), column(leaderboard(results), "koniq10k")
    assert len(whole.pairs) == 3 and len(few.pairs) == 1
    kept = next(p for p in whole.pairs if {p.a, p.b} == {few.pairs[0].a, few.pairs[0].b})
    assert few.pairs[0][:-2] == pytest.approx(kept[:-2], nan_ok=True) and few.best == whole.best
    assert row(board, "backwards").model.key not in few.letters


def test_what_was_right_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    results, computed = make_results(tmp_path / "results"), []
    real = check._recomputed
    monkeypatch.setattr(check, "_recomputed", lambda c, t: computed.append(c.file) or real(c, t))
    first = check.read_cells(results)
    assert computed and set(computed) < {
        cell.file for cell in first
    }  # those that were measured and published
    computed.clear()
    assert check.read_cells(results) == first and computed == []
    changed = next(results.glob("good-*/*/koniq10k.json"), None) or next(results.glob("good/*/koniq10k.json"))
    content = json.loads(changed.read_text())
    content["statistics"]["srcc"]["value"] -= 0.01
    write_json(changed, content)
    with pytest.raises(ScoreTableError, match="computed again"):
        check.read_cells(results)
    assert computed == ["/".join(changed.parts[-3:])]
    with pytest.raises(ScoreTableError, match="computed again"):  # what is wrong is never remembered
        check.read_cells(results)


def test_order_is_most_data_sets_then_mean(board: Board) -> None:
    names = [r.model.name for r in board.rows]
    assert names[:2] == ["good", "backwards"]  # the only ones with every set of human scores
    assert names[-2:] == ["constant", "gone"]


def test_markdown_shows_trouble(board: Board) -> None:
    text = markdown(board)
    table, reasons = text.split("### Cells without a number")
    lines = {line.split(" | ")[1]: line for line in table.splitlines() if line.startswith("| ")}
    assert lines["constant"].count("undefined") == 2 and lines["gone"].count("unavailable") == 2
    assert "| constant | koniq10k | undefined | all 100 predictions are 3 |" in reasons
    assert "| gone | koniq10k, synthetic:lab | unavailable | its weights cannot be downloaded |" in reasons
    assert "‡" in lines["leaked"] and "†" in lines["good"] and "?" in lines["failing"]
    assert "13 failed → 0." in lines["failing"] and "-0." in lines["backwards"]
    assert "not run" in lines["leaked"]
    assert "(*synthetic*)" in text and "no human looked at them" in text
    assert "<img" not in text
    widths = {
        line.count(" | ") for line in text.splitlines() if line.startswith("| ") and "koniq10k test" in line
    }
    assert widths == {lines["good"].count(" | ")}


def test_reported_numbers_stand_apart(board: Board) -> None:
    measured, reported = markdown(board).split("## Reported by authors, not measured here")
    assert "| RALI | 0.939 / 0.922 |" in reported and "RALI | 0.939" not in measured
    assert "From a paper" in reported and "From a paper" not in measured


def test_csv_has_every_cell(board: Board) -> None:
    rows = list(csv.DictReader(io.StringIO(table_csv(board))))
    assert len(rows) == 7 * 3
    good = next(r for r in rows if r["model"] == "good" and r["dataset"] == "synthetic:lab")
    assert good["labels"] == "synthetic" and good["leakage"] == "same-dataset" and good["n"] == "120"
    assert float(good["srcc_low"]) < float(good["srcc"]) < float(good["srcc_high"])
    assert good["latency_p50_ms"] == "4.0" and good["parameters"] == "350000"
    gone = next(r for r in rows if r["model"] == "gone" and r["dataset"] == "koniq10k")
    assert gone["status"] == "unavailable" and gone["srcc"] == ""
    assert [_text(value) for value in ("=cmd()", True, 5)] == ["'=cmd()", "yes", "5"]


def test_two_revisions_of_one_model(results: Path, tmp_path: Path) -> None:
    copied = make_copy(results, tmp_path)
    content = read_json(copied / "good" / "0123456789ab" / "koniq10k.json")
    content["model"]["revision"] = "fedcba9876543210"
    write_json(copied / "good" / "fedcba987654" / "koniq10k.json", content)
    labels = [r.label for r in leaderboard(copied).rows]
    assert "good @0123456" in labels and "good @fedcba9" in labels


def make_copy(results: Path, folder: Path) -> Path:
    for path in results.rglob("*.json"):
        target = folder / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def test_one_data_set_measured_on_other_rows(results: Path, tmp_path: Path) -> None:
    copied = make_copy(results, tmp_path)
    path = copied / "good" / "0123456789ab" / "koniq10k.json"
    content = read_json(path)
    content["dataset"]["n"] = 99
    write_json(path, content)
    with pytest.raises(ScoreTableError, match="do not make up the 99 rows"):
        leaderboard(copied)


def test_one_data_set_with_other_labels(results: Path, tmp_path: Path) -> None:
    """Both files are right by themselves; together they make no column."""
    copied = make_copy(results, tmp_path)
    path = next(copied.glob("good/*/livec.json"))
    content = read_json(path)
    content["dataset"]["rows_sha256"] = "0" * 64
    write_json(path, content)
    with pytest.raises(ScoreTableError, match="not measured on the same rows"):
        leaderboard(copied)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("statistics", "srcc", "value"), 17, r"it lies in \[-1, 1\]"),
        (("statistics", "srcc", "value"), 0.99, "computed again from the scores"),
        (("statistics", "rmse_mapped", "low"), -1, r"it lies in \[0, inf\]"),
        (("statistics", "srcc_failures_worst"), 1.5, "less than or equal to 1"),
        (("model", "parameters", "used"), -3, "greater than or equal to 0"),
        (("provenance", "resamples"), 10**9, "less than or equal to"),
    ],
)
def test_a_board_is_made_of_checked_files_only(results: Path, tmp_path: Path, place, value, said) -> None:
    copied = make_copy(results, tmp_path)
    path = next(copied.glob("backwards/*/koniq10k.json"))
    inner = content = read_json(path)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    write_json(path, content)
    with pytest.raises(ScoreTableError, match=said):
        leaderboard(copied)


def test_bold_is_who_nobody_fair_beats(board: Board) -> None:
    """A model trained on the data set is no measure: it makes nobody worse, and may itself be beaten."""
    here = column(board, "synthetic-lab")
    beaten = {p.b if p.difference > 0 else p.a for p in here.pairs if p.p_holm < 0.05}
    assert row(board, "backwards").model.key in beaten
    fair = {r.model.key for r in board.rows if r.cells.get("synthetic-lab")} - {
        row(board, "good").model.key,
        row(board, ODD_NAME).model.key,
    }
    for key in fair - here.best:
        if key in here.letters:
            rivals = [p for p in here.pairs if key in (p.a, p.b) and {p.a, p.b} & (fair - {key})]
            assert any(p.p_holm < 0.05 for p in rivals)


def test_broken_files_are_all_named(results: Path, tmp_path: Path) -> None:
    copied = make_copy(results, tmp_path)
    (copied / "good" / "0123456789ab" / "koniq10k.json").write_text("{")
    content = read_json(copied / "leaked" / "0123456789ab" / "koniq10k.json")
    content["statistics"]["srcc"] = 0.9
    write_json(copied / "leaked" / "0123456789ab" / "koniq10k.json", content)
    with pytest.raises(ScoreTableError) as caught:
        leaderboard(copied)
    assert "2 results files" in str(caught.value)
    assert "good/" in str(caught.value) and "leaked/" in str(caught.value)


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rali-zoo benchmark"):
        leaderboard(tmp_path)


def test_pooled_srcc(results: Path, tmp_path: Path) -> None:
    """Over two published sets of one kind; of scores in MOS units alone."""
    copied = make_copy(results, tmp_path)
    for path in copied.glob("*/*/livec*.json"):
        path.unlink()
    for path in (p for p in copied.rglob("synthetic-lab.json") if p.parent.name != "datasets"):
        content = json.loads(path.read_text())
        content["dataset"]["synthetic"] = False
        write_json(path, content)
    board = leaderboard(copied)
    both = [targets("koniq10k"), targets("synthetic-lab")]
    scores = [
        scores_of("good", k, np.array(t["mos"]))
        for k, t in zip(("koniq10k", "synthetic-lab"), both, strict=True)
    ]
    expected = spearmanr(np.concatenate(scores), np.concatenate([t["mos"] for t in both])).statistic
    assert row(board, "good").averages["human"].pooled == pytest.approx(expected, abs=1e-4)
    assert row(board, "backwards").averages["human"].pooled is None


def test_aesthetics_are_in_no_mean_with_quality(results: Path, tmp_path: Path) -> None:
    """Two suites into one folder of results; one suite refuses both."""
    copied = make_copy(results, tmp_path)
    before = row(leaderboard(copied), "good").averages["human"]
    for path in copied.glob("*/*/livec.json"):
        content = json.loads(path.read_text())
        content["dataset"]["question"] = "aesthetics"
        write_json(path, content)
    board = leaderboard(copied)
    after = row(board, "good").averages
    assert (before.of, after["human"].of, after["aesthetics"].of) == (2, 1, 1)
    assert "aesthetics" in board.labels and after["human"].mean != before.mean
    assert "mean, aesthetics" in markdown(board) and "(*aesthetics*)" in markdown(board)


def test_number() -> None:
    assert [number(v) for v in (None, 0.12345, -0.12345, -0.0001)] == ["–", "0.123", "-0.123", "0.000"]


def test_reported_averages_are_the_papers() -> None:
    """The means that the paper prints follow from the cells that were copied."""
    first = next(t for t in read_reported(REPORTED) if t.id == "koniq-trained")
    printed = {
        "RALI": (0.798, 0.779),
        "DeQA-Score": (0.786, 0.765),
        "Q-Insight (scores only)": (0.765, 0.739),
    }
    for name, expected in printed.items():
        found = first.average(next(r for r in first.rows if r.model == name))
        assert found == pytest.approx(expected, abs=0.0006)
    assert first.best("pipal") == [0.527, 0.528]
    assert first.average(next(r for r in first.rows if r.model == "ReLIQS")) == [None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"koniq": [0.9]}}, "Did you mean 'koniq10k'"),
        ({"values": {"koniq10k": [0.9, 0.8]}}, "needs 1 numbers"),
        ({"values": {"koniq10k": [90.1]}}, "less than or equal to 1, not 90.1"),
        ({"values": {"koniq10k": [True]}}, "valid number, not True"),
        ({"valeus": {}}, "Did you mean 'values'"),
        ({"values": {}, "remark": "x"}, "remark is no key here"),
    ],
)
def test_reported_file_with_a_wrong_row(change: dict[str, object], message: str, tmp_path: Path) -> None:
    table = {"id": "a", "title": "A", "source": "S", "metrics": ["SRCC"], "datasets": ["koniq10k"]}
    path = tmp_path / "reported.yaml"
    path.write_text(json.dumps({"tables": [{**table, "rows": [{"model": "M", **change}]}]}))
    with pytest.raises(ScoreTableError, match=message):
        read_reported(path)


def test_reported_file_with_a_script_for_an_address(tmp_path: Path) -> None:
    table = {"id": "a", "title": "A", "source": "S", "metrics": ["SRCC"], "datasets": ["x"], "rows": []}
    rows = [{"model": "M", "values": {"x": [None]}}]
    path = tmp_path / "reported.yaml"
    path.write_text(json.dumps({"tables": [{**table, "rows": rows, "url": "javascript:alert(1)"}]}))
    with pytest.raises(ScoreTableError, match="url: .*javascript"):
        read_reported(path)
