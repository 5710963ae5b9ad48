"""A degradation column from the suite to the page: measured, checked, never mixed with columns of scores."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from bench_fakes import Constant, Sharpness, make_data, make_suite, tree, use

from rali_zoo.bench import run
from rali_zoo.bench.check import check_file
from rali_zoo.bench.engines import run_suite
from rali_zoo.bench.leaderboard import leaderboard
from rali_zoo.bench.leakage import leakage
from rali_zoo.bench.markdown import markdown, table_csv
from rali_zoo.bench.page.data import page_data
from rali_zoo.bench.results import read_cell, read_targets
from rali_zoo.bench.rows import load_rows
from rali_zoo.bench.suite import DegradationEntry, Suite, parse_suite
from rali_zoo.errors import ConfigError, ScoreTableError
from rali_zoo.types import Score


class Blunt(Sharpness):
    """Cannot score the strongest degradations."""

    name, nan_below = "fake:blunt", -1.0

    def score(self, images, batch_size=16, progress=None):
        found = super().score(images)
        return [
            Score(None, error="too much") if str(p).endswith("-5.png") else s
            for p, s in zip(images, found, strict=True)
        ]


MODELS = {"fake:sharpness": Sharpness(), "fake:constant": Constant(), "fake:blunt": Blunt()}


@pytest.fixture(scope="module")
def chained(tmp_path_factory, photo) -> str:
    """Three photographs under blur and JPEG in five levels."""
    from PIL import Image

    folder: Path = tmp_path_factory.mktemp("photographs")
    for i in range(3):
        Image.fromarray(photo(seed=i)).save(folder / f"{i}.png")
    return f"degraded:{folder}?types=gaussian_blur,jpeg&protocol=whole&workers=1"


@pytest.fixture(scope="module")
def results(tmp_path_factory, photo, chained) -> Path:
    """Three scorers on a data set with scores and on degradations."""
    from PIL import Image

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("run")
        patch.setenv("RALI_ZOO_CACHE", str(folder / "cache"))
        paths = [folder / f"p{i:02d}.png" for i in range(12)]
        for i, path in enumerate(paths):
            Image.fromarray(photo(seed=i)).save(path)
        suite = make_suite(make_data(folder, paths), *MODELS)
        suite = suite.model_copy(update={"degradations": [DegradationEntry(ref=chained)]})
        use(patch, dict(MODELS))
        run_suite(suite, folder / "results")
    return folder / "results"


def cell_of(results: Path, name: str) -> Path:
    slug = name.replace(":", "-")
    (path,) = [p for p in results.glob(f"{slug}*/*/*-response.json") if not p.name.endswith(".cost.json")]
    return path


def test_a_cell_holds_shares_and_no_correlation(results):
    sharp, constant, blunt = (read_cell(cell_of(results, name)) for name in MODELS)
    assert sharp.status == "ok" and sharp.statistics is None and sharp.dataset.ordered
    assert (sharp.n, sharp.response.contents) == (3 * 11, 3)
    assert sharp.response.ordered.n == 3 * 2 * 4
    assert (
        sharp.response.by_distortion["gaussian_blur"].value == sharp.response.by_family["blur"].value == 1.0
    )
    assert sharp.response.by_family["blur"].n == 12
    assert (constant.response.ordered.value, constant.response.pristine_first.value) == (0.5, 0.0)
    assert blunt.failed == 6 and blunt.response.pristine_first.value == 0.0
    assert blunt.response.by_distortion["gaussian_blur"].value == 0.75  # the pairs 4-5 count as wrong
    assert blunt.ranking == blunt.response.ordered.value
    targets = read_targets(results, [sharp])
    assert targets is not None and targets.mos == [] and len(targets.ids) == 33


def test_check_results_computes_it_again(results, tmp_path):
    assert check_file(cell_of(results, "fake:sharpness")) == []
    copied = tmp_path / "results"
    for name, content in tree(results).items():
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes(content)
    path = cell_of(copied, "fake:sharpness")
    honest = json.loads(path.read_text())
    for change, said in (
        (lambda c: c["response"]["ordered"].update(value=0.99), "response.ordered.value is 0.99"),
        (lambda c: c["response"]["by_family"].pop("jpeg"), "response.by_family.jpeg"),
        (lambda c: c["dataset"].update(ordered=False), "ordered is false"),
        (lambda c: c.update(response=None), "there is no response"),
        (lambda c: c["scores"].__setitem__(3, 1e6), "computed again"),
    ):
        cell = json.loads(json.dumps(honest))
        change(cell)
        path.write_text(json.dumps(cell))
        assert said in "\n".join(check_file(path)), said


def test_the_board_never_mixes_it_with_scores(results):
    board = leaderboard(results)
    assert [column.labels for column in board.columns] == ["human", "order"]
    by_name = {row.label: row for row in board.rows}
    sharp = by_name["fake:sharpness"]
    human, order = (sharp.cells[column.dataset.key] for column in board.columns)
    assert sharp.averages["human"].mean == human.ranking
    assert sharp.averages["order"].mean == order.response.ordered.value
    # The constant scorer has no correlation, and half of the pairs do not lift it above the others.
    assert board.rows[-1].label == "fake:constant"
    assert board.columns[1].pairs == () and "not tested" in board.columns[1].note
    text = markdown(board)
    assert "(*degradation response*)" in text and "### Degradation response" in text
    assert "mean, degradation response" not in text  # one column is its own mean
    records = list(csv.DictReader(io.StringIO(table_csv(board))))
    kinds = {(r["model"], r["labels"]): r for r in records}
    row = kinds["fake:sharpness", "order"]
    assert float(row["ordered"]) == order.response.ordered.value and row["srcc"] == ""
    assert int(row["ordered_n"]) == 24 and row["ordered_blur"] == "1.0" and row["ordered_noise"] == ""
    assert kinds["fake:sharpness", "human"]["ordered"] == ""
    page = page_data(board)
    assert page["columns"][1]["gmad"] == [] and page["columns"][1]["labels"] == "order"
    assert page["rows"][0]["cells"][1]["response"]["ordered"][3] == 24


def test_nothing_is_done_twice(results, chained, tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(results.parent / "cache"))
    scorer = Sharpness()
    use(monkeypatch, {"fake:sharpness": scorer})
    suite = Suite(
        name="t",
        models=[{"ref": "fake:sharpness", "name": "fake:sharpness"}],
        degradations=[DegradationEntry(ref=chained)],
        resamples=50,
        cost=None,
    )
    (done,) = run_suite(suite, results)
    assert not done.fresh and scorer.calls == []
    assert run.read_cell(done.path).same(done.cell)


def test_data_without_levels_end_it_before_anything_runs(tmp_path, photo_folder, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    paths = photo_folder(6)
    suite = make_suite(make_data(paths[0].parent, paths), "x")
    with pytest.raises(ConfigError, match="in two levels"):
        load_rows(DegradationEntry(ref=suite.datasets[0].ref), suite, "data")


def test_a_suite_may_hold_degradations_alone_and_must_hold_something():
    content = {"models": ["rali-tiny-synthetic"], "degradations": ["degraded:library?protocol=whole"]}
    suite = parse_suite(content, "t")
    assert [entry.ref for entry in suite.entries] == content["degradations"]
    with pytest.raises(ConfigError, match="names no data set"):
        parse_suite({"models": ["rali-tiny-synthetic"]}, "t")
    with pytest.raises(ConfigError, match="twice"):
        parse_suite({**content, "degradations": content["degradations"] * 2}, "t")


def test_who_was_trained_on_the_same_photographs(chained, tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    suite = make_suite("csv:x?mos_range=1,5", "x")
    rows = load_rows(DegradationEntry(ref=chained), suite, "data")
    folder = chained.removeprefix("degraded:").partition("?")[0]

    def flag(*sets: str) -> str:
        return leakage(sets, rows, "data").flag

    assert flag("biq2021", "degraded:../nowhere/pristine?types=all&each=17") == "none"  # and is not made
    assert flag("synthetic:lab") == "none"
    assert flag(f"degraded:{folder}/./?types=all&seed=3") == "test-rows"
    library = load_rows(
        DegradationEntry(ref="degraded:library?protocol=whole&types=jpeg&workers=1"), suite, "data"
    )
    assert leakage(("synthetic:lab",), library, "data").flag == "same-dataset"
    assert leakage(("degraded:../nowhere/pristine",), library, "data").flag == "none"
    assert leakage(("degraded:library?size=64",), library, "data").flag == "test-rows"


def test_targets_of_half_a_kind_are_refused(results, tmp_path):
    cell = read_cell(cell_of(results, "fake:sharpness"))
    (tmp_path / "datasets").mkdir()
    path = tmp_path / cell.dataset.targets
    targets = json.loads((results / cell.dataset.targets).read_text())
    targets["std"] = [0.5] * 33
    path.write_text(json.dumps(targets))
    with pytest.raises(ScoreTableError, match="columns of different lengths"):
        read_targets(tmp_path, [cell])
