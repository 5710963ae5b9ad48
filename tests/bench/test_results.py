"""Results files: what does not fit the schema is named, and a tampered submission is caught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_fakes import Sharpness, make_data, make_suite, use

from rali_zoo.bench.check import check_file
from rali_zoo.bench.engines import run_suite
from rali_zoo.bench.results import (
    CELL,
    cell_path,
    find_cells,
    read_cell,
    read_targets,
    rows_sha256,
    six,
    slug,
    write_json,
)
from rali_zoo.errors import ScoreTableError


@pytest.fixture(scope="module")
def original(tmp_path_factory, photo) -> Path:
    """A cell of 12 images, two of which failed."""
    from PIL import Image

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("RALI_ZOO_CACHE", str(folder / "cache"))
        paths = [folder / f"p{i:02d}.png" for i in range(12)]
        for i, path in enumerate(paths):
            Image.fromarray(photo(seed=i)).save(path)
        data = make_data(folder, paths)
        for path in paths[:2]:
            path.write_bytes(b"")
        use(patch, {"fake:sharpness": Sharpness()})
        (done,) = run_suite(make_suite(data, "fake:sharpness"), folder / "results")
    return done.path


@pytest.fixture
def cell(original, tmp_path) -> Path:
    """A copy of it with its targets."""
    results = original.parents[2]
    for path in [original, *results.glob("datasets/*.json"), *original.parent.glob("*.cost.json")]:
        target = tmp_path / "results" / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "results" / original.relative_to(results)


def change(path: Path, place: str, value: object) -> None:
    """Set a value deep in a file: ``model.name``, ``scores.3``."""
    content = json.loads(path.read_text())
    *way, last = [int(p) if p.isdigit() else p for p in place.split(".")]
    inner = content
    for part in way:
        inner = inner[part]
    inner[last] = value
    path.write_text(json.dumps(content))


def test_an_honest_file_is_right(cell):
    assert check_file(cell) == []
    assert find_cells(cell.parents[2]) == [cell]
    content = read_cell(cell)
    assert content["provenance"]["written"] and content["cost"] is None  # no cost was asked for
    assert read_targets(cell.parents[2], content)["ids"][0] == "p00.png"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("status", "great", "status: 'great' is not one of ok, undefined, unavailable, failed"),
        ("schema", 2, "schema: 2; this version reads 1"),
        ("n", "10", "n: '10' is no int"),
        ("n", True, "n: True is no int"),
        ("model.training_sets", "koniq10k", "model.training_sets is no list"),
        ("model.licence", None, "model.licence is null"),
        ("leakage.flag", "maybe", "leakage.flag: 'maybe'"),
        ("scores.3", "4.5", "scores[3]: '4.5' is no float"),
        ("failures.0.reason", "x", "failures[0].reason is no key of the schema"),
        ("verdict", 1, "verdict is no key of the schema"),
        ("scores.3", 99.0, "statistics.plcc.value is"),
        ("statistics.srcc.value", 0.999, "statistics.srcc.value is 0.999; computed again from the scores"),
        ("statistics.srcc.high", 0.111, "statistics.srcc.high"),
        ("statistics.status", "undefined", "statistics.status"),
        ("status", "undefined", "reason is empty"),
        ("n", 11, "n 11 and failed 2 do not make up the 12 rows"),
        ("failed", 1, "failures lists 2 images; of 1 failed"),
        ("failures.0.id", "p05.png", "'p05.png', which is no row without a score"),
        ("scores", None, "scores are missing"),
        ("scores.0", 1.0, "n is 10, but scores has 11 numbers"),
        ("dataset.targets", None, "nobody can tell which images"),
        ("dataset.targets", "datasets/none.json", "none.json"),
        ("dataset.targets", "../../etc/passwd", "points out of"),
        ("dataset.rows_sha256", "0" * 64, "rows_sha256 differ"),
        ("model.revision", "rev-2", "by its model and revision it belongs into"),
        ("model.name", "other", "by its model and revision it belongs into"),
        ("provenance.seed", 1, "statistics.srcc.low"),
    ],
)
def test_a_changed_file_is_caught(cell, place, value, said):
    change(cell, place, value)
    assert said in "\n".join(check_file(cell))


def test_the_shape_of_a_missing_key_and_of_no_object():
    assert list(CELL.wrong([])) == ["the file is no object"]
    assert "schema is missing" in list(CELL.wrong({}))


def test_changed_targets_are_caught(cell):
    (targets,) = cell.parents[2].glob("datasets/*.json")
    change(targets, "mos.4", 1.0)
    assert "rows_sha256 is not that of its rows" in "\n".join(check_file(cell))
    content = json.loads(targets.read_text())
    change(targets, "rows_sha256", rows_sha256(content))
    assert "rows_sha256 differ" in "\n".join(check_file(cell))
    targets.unlink()
    assert "cannot be read" in "\n".join(check_file(cell))


def test_a_file_that_is_no_json(cell):
    cell.write_text(cell.read_text().replace('"failed": 2', '"failed": NaN'))
    assert "NaN is no number in JSON" in "\n".join(check_file(cell))
    with pytest.raises(ScoreTableError, match="is no results file"):
        read_cell(cell)


def test_a_bad_file_of_costs_is_named(cell):
    beside = cell.with_name(f"{cell.stem}.cost.json")
    beside.write_text('{"schema": 1, "cost": null}')
    assert "cost.json: written is missing" in "\n".join(check_file(cell))


def test_names_of_files():
    assert slug("rali-tiny-synthetic") == "rali-tiny-synthetic"
    assert (
        slug("csv:a.csv") != slug("csv/a.csv") and "/" not in slug("ckpt:../../x") and ":" not in slug("a:b")
    )
    path = cell_path(Path("r"), "pyiqa:psnr", "pyiqa-0.1.16+abcdef", "koniq10k")
    assert path.parts[-2:] == ("pyiqa-0.1.16", "koniq10k.json")
    assert cell_path(Path("r"), "m", "../..", "d").parts[-2] not in ("..", ".")


def test_six_digits_and_no_nan(tmp_path):
    assert six(1.23456789) == 1.23457 and six(float("nan")) is None and six(None) is None
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
