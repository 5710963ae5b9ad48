"""Results files: what does not fit the schema is named, and a tampered submission is caught."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from bench_fakes import Sharpness, make_data, make_suite, use

from rali_zoo.bench.check import check_file
from rali_zoo.bench.engines import run_suite
from rali_zoo.bench.results import cell_path, find_cells, read_cell, read_targets, rows_sha256
from rali_zoo.errors import ScoreTableError
from rali_zoo.report import STATISTICS, six

SHIPPED = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


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
    assert content.written and content.cost is None  # no cost was asked for
    assert read_targets(cell.parents[2], [content]).ids[0] == "p00.png"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("status", "great", "status: 'great' is no choice. Known: failed, ok, unavailable, undefined"),
        ("schema", 3, "schema: 3 is no choice"),
        ("n", "10", "n: should be a valid integer, not '10'"),
        ("n", True, "n: should be a valid integer, not True"),
        ("model.training_sets", "koniq10k", "model.training_sets: should be a valid list"),
        ("model.licence", None, "model.licence: should be a valid string, not None"),
        ("leakage.flag", "maybe", "leakage.flag: 'maybe'"),
        ("scores.3", "4.5", "scores.3: should be a valid number"),
        ("failures.0.reason", "x", "failures.0.reason is no key here. Known: error, id"),
        ("verdict", 1, "verdict is no key here"),
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
        ("statistics.srcc.value", 17.0, "value 17 cannot be: it lies in [-1, 1]"),
        ("statistics.rmse_mapped.value", -1.0, "it lies in [0, inf]"),
        ("statistics.ties", 1.5, "statistics.ties: should be less than or equal to 1"),
        ("model.parameters.used", -3, "model.parameters.used: should be greater than or equal to 0"),
        ("dataset.raters", 0.5, "dataset.raters: should be greater than or equal to 1"),
        ("provenance.resamples", 10**12, "provenance.resamples: should be less than or equal to 1000000"),
    ],
)
def test_a_changed_file_is_caught(cell, place, value, said):
    change(cell, place, value)
    assert said in "\n".join(check_file(cell))


def test_no_object_a_missing_key_and_a_key_given_twice(cell):
    whole = cell.read_text()
    for text, said in (
        ("[]", "valid dictionary"),
        ("{}", "model is missing"),
        ("[" * 100_000, "is no results file"),
        (whole.replace('"n": 10,', '"n": 10, "n": 10,', 1), "the key 'n' stands there twice"),
    ):
        cell.write_text(text)
        lines = "\n".join(check_file(cell))
        assert said in lines and cell.name in lines


def test_a_statistic_that_is_not_there_was_not_computed(cell):
    """A file that is older than a row of the table is right; one that is wrong about a row is not."""
    for name in STATISTICS:
        if name != "srcc":
            change(cell, f"statistics.{name}", None)
    assert check_file(cell) == [] and read_cell(cell).estimate("mae").value is None
    change(cell, "statistics.krcc", {"value": 0.1, "low": None, "high": None})
    assert "statistics.krcc.value" in "\n".join(check_file(cell))


def test_files_of_the_first_schema_are_read_by_their_own_names():
    """There ``rmse`` was after the mapping, and ``rmse_raw`` without it."""
    (path,) = (
        p for p in SHIPPED.glob("rali-tiny-synthetic/*/synthetic*.json") if not p.name.endswith("cost.json")
    )
    old, new = json.loads(path.read_text()), read_cell(path)
    if old["schema"] == 1:
        assert new.estimate("rmse_mapped").value == old["statistics"]["rmse"]["value"]
        assert new.estimate("rmse").value == old["statistics"]["rmse_raw"]["value"]
        assert new.provenance.versions["torch"] == old["provenance"]["torch"]
    assert new.statistics.mae is None or new.statistics.mae.value > 0


def test_shipped_results_are_right_and_one_model_can_be_checked():
    found = find_cells(SHIPPED)
    assert len(found) == 78 and find_cells(SHIPPED / "rali-tiny-synthetic") == [
        p for p in found if p.parts[-3] == "rali-tiny-synthetic"
    ]
    for path in find_cells(SHIPPED / "rali-tiny-synthetic") + find_cells(found[3].parent):
        assert check_file(path) == []


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
    assert "written is missing" in "\n".join(check_file(cell))


def test_names_of_files():
    path = cell_path(Path("r"), "pyiqa:psnr", "pyiqa-0.1.16+abcdef", "koniq10k")
    assert path.parts[-2:] == ("pyiqa-0.1.16", "koniq10k.json")
    assert cell_path(Path("r"), "m", "../..", "d").parts[-2] not in ("..", ".")


def test_six_digits():
    assert six(1.23456789) == 1.23457 and six(float("nan")) is None and six(None) is None


def mutated(text: str, rng: random.Random) -> str:
    """One change of a file as disks, editors and strangers make them."""
    kind = rng.randrange(6)
    i, j = sorted((rng.randrange(len(text)), rng.randrange(len(text))))
    if kind == 0:
        return text[:i]
    if kind == 1:
        return text[:i] + text[j:]
    if kind == 2:
        return text[:i] + chr(rng.choice([0, 34, 48, 91, 93, 123, 125, 0x20AC, 0xD7FF])) + text[i + 1 :]
    if kind == 3:
        return text[:i] + text[i : i + 40] + text[i:]
    content = json.loads(text)
    inner, key = content, rng.choice(list(content))
    while isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.8:
        inner = inner[key]
        key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
    odd = [
        None,
        True,
        -1,
        1e300,
        10**400,
        "",
        "x" * 50,
        [],
        {},
        [[]],
        {"a": 1},
        "../../etc/passwd",
        "NaN",
        2**63,
    ]
    inner[key] = rng.choice(odd)
    return json.dumps(content)


def test_two_thousand_mutated_files_end_in_one_error_each(cell):
    rng = random.Random(0)
    (targets,) = cell.parents[2].glob("datasets/*.json")
    whole = read_cell(cell)
    for path, read in ((cell, read_cell), (targets, lambda path: read_targets(path.parents[1], [whole]))):
        text = path.read_text()
        for _ in range(1000):
            path.write_text(mutated(text, rng), encoding="utf-8", errors="surrogatepass")
            try:
                read(path)
            except ScoreTableError as error:
                assert path.name in str(error)
        path.write_text(text)
    assert check_file(cell) == []
