"""The runner with planted troubles: each comes out visibly, none ends the run, a killed one goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from bench_fakes import Closeness, Constant, Sharpness, killed_run, make_data, make_suite, tree, use

from rali_zoo.bench import cache, engines, predict, run
from rali_zoo.bench.check import check_file
from rali_zoo.bench.engines import run_suite
from rali_zoo.bench.leakage import leakage
from rali_zoo.bench.results import Failure
from rali_zoo.bench.rows import load_rows
from rali_zoo.bench.suite import DatasetEntry, Entry, Suite
from rali_zoo.errors import ConfigError, MissingExtraError, RaliZooError, WeightsUnavailableError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def paths(photo_folder) -> list[Path]:
    return photo_folder(18)


@pytest.fixture
def data(paths) -> str:
    return make_data(paths[0].parent, paths)


def csv_entry(folder: Path, data: str, name: str, values, **options: str) -> Entry:
    """Scores of the data's images in a file, as somebody would submit them."""
    ids = pd.read_csv(data.removeprefix("csv:").partition("?")[0])["image"]
    file = folder / f"{name}.csv"
    pd.DataFrame({"id": ids, "score": values}).to_csv(file, index=False)
    query = "".join(f"&{k}={v}" for k, v in options.items())
    return Entry(ref=f"csv:{file}?name={name}{query}", name=name)


def test_a_cell_holds_what_is_asked_of_it(data, tmp_path, monkeypatch):
    use(monkeypatch, {"fake:sharpness": Sharpness()})
    (done,) = run_suite(make_suite(data, "fake:sharpness"), tmp_path / "r")
    cell = done.cell
    assert (cell.status, cell.n, cell.failed, cell.reason) == ("ok", 18, 0, "")
    assert cell.model.revision == "rev-1" and cell.model.kind == "NR"
    assert cell.dataset.targets == f"datasets/{done.path.name}"
    assert done.path.parent.name == "rev-1" and done.path.parents[2] == tmp_path / "r"
    targets = json.loads((tmp_path / "r" / cell.dataset.targets).read_text())
    expected = pd.Series(cell.scores).corr(pd.Series(targets["mos"]), method="spearman")
    assert cell.statistics.srcc.value == pytest.approx(expected, abs=1e-5)
    assert cell.provenance.seed == 0 and cell.written
    assert check_file(done.path) == []


def test_planted_scores_from_files(data, tmp_path):
    """An inverted metric, a constant one, one with NaN, one that is honest: four visibly different cells."""
    mos = pd.read_csv(data.removeprefix("csv:").partition("?")[0])["mos"].to_numpy()
    noise = np.random.default_rng(1).normal(0, 0.8, len(mos))
    honest = mos + noise
    gaps = [v if i % 3 else "nan" for i, v in enumerate(mos)]  # right wherever it says anything
    models = [
        csv_entry(tmp_path, data, "honest", honest, score_range="1,5"),
        csv_entry(tmp_path, data, "inverted", -honest),
        csv_entry(tmp_path, data, "constant", np.full(len(mos), 2.5)),
        csv_entry(tmp_path, data, "gaps", gaps),
    ]
    suite = Suite(
        name="t", models=models, datasets=[DatasetEntry(ref=data, publish=True)], resamples=50, cost=None
    )
    cells = {d.cell.model.name: d.cell for d in run_suite(suite, tmp_path / "r")}
    value = {name: c.estimate("srcc").value for name, c in cells.items()}
    assert value["honest"] > 0.5 and value["inverted"] == pytest.approx(-value["honest"])
    assert (
        cells["constant"].status == "undefined" and "all 18 predictions are 2.5" in cells["constant"].reason
    )
    assert value["constant"] is None
    assert (cells["gaps"].n, cells["gaps"].failed) == (12, 6) and len(cells["gaps"].failures) == 6
    assert "nan" in cells["gaps"].failures[0].error and value["gaps"] == pytest.approx(1)
    worst = {n: c.statistics.srcc_failures_worst for n, c in cells.items()}
    assert worst["gaps"] < worst["honest"] == value["honest"]
    assert not cells["honest"].model.native_scale and cells["inverted"].model.native_scale
    for done in (tmp_path / "r").glob("*/*/*.json"):
        assert done.name.endswith(".cost.json") or check_file(done) == []


def test_corrupt_images_are_counted_and_named(paths, data, tmp_path, monkeypatch):
    paths[2].write_bytes(b"no image")
    paths[7].write_bytes(paths[7].read_bytes()[:150])
    use(monkeypatch, {"fake:sharpness": Sharpness()})
    (done,) = run_suite(make_suite(data, "fake:sharpness"), tmp_path / "r")
    assert (done.cell.n, done.cell.failed, done.cell.status) == (16, 2, "ok")
    assert [f.id for f in done.cell.failures] == ["photo002.png", "photo007.png"]
    assert all(f.error for f in done.cell.failures)
    assert [i for i, s in enumerate(done.cell.scores) if s is None] == [2, 7]


def test_nan_and_crashes_cost_their_images_only(paths, data, tmp_path, monkeypatch):
    class Crashes(Sharpness):
        name = "fake:crashes"

        def value(self, path: str) -> float:
            if path.endswith("photo005.png"):
                raise RuntimeError("kernel larger than image")
            return super().value(path)

    median = float(np.median([Sharpness().value(str(p)) for p in paths]))
    use(monkeypatch, {"nan": lambda: Sharpness(nan_below=median), "crashes": Crashes})
    nan, crashes = (d.cell for d in run_suite(make_suite(data, "nan", "crashes"), tmp_path / "r"))
    assert nan.n + nan.failed == 18 and nan.failed == 9
    assert crashes.failed == 1 and crashes.failures == [
        Failure(id="photo005.png", error="RuntimeError: kernel larger than image")
    ]
    whole = crashes.statistics.srcc_failures_worst
    assert nan.statistics.srcc_failures_worst < whole


def test_a_constant_scorer_and_one_that_fails_everywhere(data, tmp_path, monkeypatch):
    broken = Sharpness(nan_below=1e9)
    use(monkeypatch, {"constant": Constant(), "broken": broken})
    constant, failed = (d.cell for d in run_suite(make_suite(data, "constant", "broken"), tmp_path / "r"))
    assert constant.status == "undefined" and "all 18 predictions are 3" in constant.reason
    assert failed.status == "failed" and failed.n == 0 and "no image has a score" in failed.reason


def test_a_data_set_that_is_not_ours_to_publish(paths, data, tmp_path, monkeypatch):
    paths[2].write_bytes(b"no image")
    use(monkeypatch, {"fake:sharpness": Sharpness()})
    suite = make_suite(data, "fake:sharpness").model_copy(update={"datasets": [DatasetEntry(ref=data)]})
    (done,) = run_suite(suite, tmp_path / "r")
    assert done.cell.scores is None and done.cell.dataset.targets is None
    assert done.cell.statistics.srcc.value is not None and check_file(done.path) == []
    assert not any(b"photo0" in content for content in tree(tmp_path / "r").values())


# ---- loading ----


def test_models_that_cannot_be_loaded_say_so_and_recover(data, tmp_path, monkeypatch):
    errors = {
        "weights": WeightsUnavailableError("weights", "https://example.org/w.pth", "no network"),
        "extra": MissingExtraError("pyiqa", "pyiqa"),
        "bug": ZeroDivisionError("division by zero"),
        "fine": Sharpness(),
    }
    use(monkeypatch, errors)
    suite = make_suite(data, *errors)
    cells = [d.cell for d in run_suite(suite, tmp_path / "r")]
    assert [c.status for c in cells] == ["unavailable", "unavailable", "failed", "ok"]
    assert "w.pth" in cells[0].reason and "rali-zoo[pyiqa]" in cells[1].reason
    assert cells[2].reason == "ZeroDivisionError: division by zero"
    for path in (tmp_path / "r").glob("*/unavailable/*.json"):
        assert check_file(path) == []
    use(monkeypatch, dict.fromkeys(errors, Sharpness))
    assert [d.cell.status for d in run_suite(suite, tmp_path / "r")] == ["ok"] * 4
    assert not list((tmp_path / "r").glob("*/unavailable/*.json"))
    # a machine that lacks the weights does not take back what another one measured
    use(monkeypatch, errors)
    assert run_suite(suite, tmp_path / "r")[0].cell.status == "unavailable"
    assert not list((tmp_path / "r").glob("*/unavailable/*.json"))


def test_data_that_cannot_be_read_ends_it_before_anything_runs(data, tmp_path, monkeypatch):
    scorer = Sharpness()
    use(monkeypatch, {"fake:sharpness": scorer})
    suite = make_suite(data, "fake:sharpness")
    more = [*suite.datasets, DatasetEntry(ref="csv:none.csv?mos_range=1,5")]
    suite = suite.model_copy(update={"datasets": more})
    with pytest.raises(Exception, match=r"none\.csv"):
        run_suite(suite, tmp_path / "r")
    assert not scorer.calls
    with pytest.raises(ConfigError, match="no train rows"):
        run_suite(make_suite(data, "x").model_copy(update={"split": "train"}), tmp_path / "r")


# ---- references ----


def test_full_reference_metrics(paths, data, tmp_path, monkeypatch):
    use(monkeypatch, {"fake:closeness": Closeness})
    suite = make_suite(data, "fake:closeness")
    (without,) = run_suite(suite, tmp_path / "r")
    assert without.cell.status == "unavailable" and "no reference images" in without.cell.reason
    assert without.cell.model.kind == "FR" and check_file(without.path) == []
    make_data(paths[0].parent, paths, reference=True)
    (done,) = run_suite(suite, tmp_path / "r")
    assert done.cell.failures == [Failure(id="photo017.png", error="no reference image to compare with")]
    assert (done.cell.n, done.cell.failed) == (17, 1)


# ---- cache and resuming ----


def test_what_is_done_is_not_done_again(paths, data, tmp_path, monkeypatch):
    scorer = Sharpness()
    use(monkeypatch, {"fake:sharpness": scorer})
    suite = make_suite(data, "fake:sharpness")
    run_suite(suite, tmp_path / "r")
    before, calls = tree(tmp_path / "r"), len(scorer.calls)
    (again,) = run_suite(suite, tmp_path / "r")
    assert not again.fresh and len(scorer.calls) == calls and tree(tmp_path / "r") == before
    # without its file a cell is made anew, from the cache: one image is scored, to count parameters
    again.path.unlink()
    (again,) = run_suite(suite, tmp_path / "r")
    assert again.fresh and len(scorer.calls) == calls + 1 and tree(tmp_path / "r") == before
    # an image with other bytes under the same name is another image
    paths[3].write_bytes(paths[4].read_bytes())
    again.path.unlink()
    scorer.calls.clear()
    run_suite(suite, tmp_path / "r")
    assert len(scorer.calls) == 1  # and its content was known already: it is photo004's
    # another revision is another cell
    scorer.revision = "rev-2"
    (other,) = run_suite(suite, tmp_path / "r")
    assert other.fresh and other.path != again.path and again.path.exists()


def test_killed_and_resumed_gives_the_same_bytes(data, tmp_path, monkeypatch):
    """kill -9 in the third batch of a scorer that even draws at random."""
    suite = make_suite(data, "fake:sharpness")
    use(monkeypatch, {"fake:sharpness": lambda: Sharpness(noise=0.5)})
    run_suite(suite, tmp_path / "whole")
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "other_cache"))
    process = multiprocessing.get_context("spawn").Process(
        target=killed_run, args=(data, str(tmp_path / "part"))
    )
    process.start()
    process.join(120)
    assert process.exitcode == -9
    assert not list((tmp_path / "part").glob("fake*/*/*.json"))
    shards = list((tmp_path / "other_cache" / "predictions").glob("*/*.parquet"))
    assert sum(len(pd.read_parquet(s)) for s in shards) == 8  # two batches of four
    scorer = Sharpness(noise=0.5)
    use(monkeypatch, {"fake:sharpness": scorer})
    run_suite(suite, tmp_path / "part")
    scored = [name for call in scorer.calls for name in call]
    assert "photo000.png" not in scored[:-1] and "photo008.png" in scored  # what was there was not done again
    assert tree(tmp_path / "part") == tree(tmp_path / "whole")


def test_failures_are_never_cached(tmp_path):
    """Whether it was the image's or the machine's (a missing library, EMFILE), only another try can tell."""
    first = cache.Predictions("m")
    first.add("a", cache.Outcome(None, "cannot be decoded"))
    first.add("c", cache.Outcome(2.5))
    first.flush()
    assert cache.Predictions("m").known == {"c": cache.Outcome(2.5)}
    assert cache.Predictions("another").known == {}


def test_an_image_that_failed_is_tried_again_when_its_cell_is_there(paths, data, tmp_path, monkeypatch):
    class Moody(Sharpness):
        missing = True

        def value(self, path: str) -> float:
            if self.missing and path.endswith("photo005.png"):
                raise OSError(24, "Too many open files")
            return super().value(path)

    use(monkeypatch, {"moody": Moody})
    suite = make_suite(data, "moody")
    (first,) = run_suite(suite, tmp_path / "r")
    (second,) = run_suite(suite, tmp_path / "r")
    assert first.cell.failed == second.cell.failed == 1 and not second.fresh
    monkeypatch.setattr(Moody, "missing", False)
    (third,) = run_suite(suite, tmp_path / "r")
    assert third.fresh and third.cell.failed == 0 and check_file(third.path) == []


def test_a_failed_cell_never_replaces_one_with_numbers(data, tmp_path, monkeypatch):
    use(monkeypatch, {"fake:sharpness": Sharpness()})
    suite = make_suite(data, "fake:sharpness")
    (good,) = run_suite(suite, tmp_path / "r")
    before = good.path.read_bytes()
    for broken in (Sharpness(nan_below=1e9), Sharpness()):
        broken.preprocess_id = "other"
        if not broken.nan_below > 0:
            monkeypatch.setattr(cache, "sha256", lambda path: 1 / 0)
        use(monkeypatch, {"fake:sharpness": broken})
        (bad,) = run_suite(suite, tmp_path / "r")
        assert bad.cell.status == "failed" and good.path.read_bytes() == before


def test_what_a_cell_stands_on_is_in_it_and_a_change_measures_again(paths, data, tmp_path, monkeypatch):
    scorer = Sharpness()
    use(monkeypatch, {"fake:sharpness": scorer})
    suite = make_suite(data, "fake:sharpness")
    (first,) = run_suite(suite, tmp_path / "r")
    # other bytes of one image, at the same size and time of modification
    stat = paths[3].stat()
    changed = bytearray(paths[3].read_bytes())
    paths[3].write_bytes(paths[4].read_bytes())
    os.utime(paths[3], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (second,) = run_suite(suite, tmp_path / "r")
    assert second.fresh and second.cell.dataset.images_sha256 != first.cell.dataset.images_sha256
    paths[3].write_bytes(changed)
    assert run_suite(suite, tmp_path / "r")[0].cell.same(first.cell)
    # greedy or expectation: the same weights, other scores
    scorer.modules = lambda: [SimpleNamespace(scoring="expectation", parameters=list)]
    scorer.calls.clear()
    (third,) = run_suite(suite, tmp_path / "r")
    assert third.fresh and "expectation" in third.cell.model.settings and len(scorer.calls) > 4
    # another version of what computes
    monkeypatch.setattr(predict, "versions", lambda: {"torch": "99"})
    monkeypatch.setattr(run, "versions", lambda: {"torch": "99"})
    scorer.calls.clear()
    (fourth,) = run_suite(suite, tmp_path / "r")
    assert fourth.fresh and fourth.cell.provenance.versions == {"torch": "99"} and len(scorer.calls) > 4


def test_a_damaged_cache_is_found_out_and_heals(data, tmp_path, monkeypatch):
    scorer = Sharpness()
    use(monkeypatch, {"fake:sharpness": scorer})
    suite = make_suite(data, "fake:sharpness")
    (good,) = run_suite(suite, tmp_path / "r")
    before = tree(tmp_path / "r")
    folder = tmp_path / "cache" / "predictions"
    rng = np.random.default_rng(0)
    for trial in range(12):
        (shard,) = folder.glob("*/*.parquet")
        content = bytearray(shard.read_bytes())
        if trial % 3 == 0:
            content = content[: rng.integers(len(content))]
        else:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        shard.write_bytes(content)
        if trial % 4 == 0:
            (folder / "contents.sqlite").write_bytes(rng.bytes(5000))
        good.path.unlink()
        scorer.calls.clear()
        run_suite(suite, tmp_path / "r")
        assert tree(tmp_path / "r") == before and len(scorer.calls) > 4


@pytest.mark.parametrize("place", ["results", "cache"])
def test_a_full_disk_ends_it_in_one_line_and_loses_nothing(data, tmp_path, monkeypatch, place):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    use(monkeypatch, {"fake:sharpness": Sharpness})
    suite = make_suite(data, "fake:sharpness")
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_cell", full) if place == "results" else patch.setattr(
            cache.os, "replace", full
        )
        with pytest.raises(RaliZooError, match="cannot be written"):
            run_suite(suite, tmp_path / "r")
        assert not list((tmp_path / "r").glob("fake*/*/*.json"))
    (done,) = run_suite(suite, tmp_path / "r")
    assert done.cell.status == "ok" and check_file(done.path) == []


def test_two_processes_at_once_leave_the_same_files(data, tmp_path, monkeypatch):
    suite = make_suite(data, "fake:sharpness")
    use(monkeypatch, {"fake:sharpness": lambda: Sharpness(noise=0.5)})
    run_suite(suite, tmp_path / "whole")
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "shared"))
    context = multiprocessing.get_context("spawn")
    arguments = (data, str(tmp_path / "both"), 0)
    both = [context.Process(target=killed_run, args=arguments) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    assert tree(tmp_path / "both") == tree(tmp_path / "whole")


# ---- rows and leakage ----


def test_a_limit_draws_rows_by_name_and_says_so(data, tmp_path):
    suite = make_suite(data, "x").model_copy(update={"limit": 5})
    rows = load_rows(suite.datasets[0], suite, "data")
    assert len(rows.frame) == 5 and rows.limit == 5 and rows.slug.endswith("-5rows")
    assert "(5 rows)" in rows.entry.name and rows.entry.limit == 5
    file = Path(data.removeprefix("csv:").partition("?")[0])
    pd.read_csv(file).iloc[::-1].to_csv(file, index=False)
    assert set(load_rows(suite.datasets[0], suite, "data").frame.id) == set(rows.frame.id)
    all_of_them = suite.model_copy(update={"limit": 99})
    assert load_rows(suite.datasets[0], all_of_them, "data").limit is None


def test_leakage_flags(paths, data, tmp_path):
    folder = paths[0].parent
    table = pd.read_csv(folder / "scores.csv").assign(split=["train"] * 9 + ["test"] * 9)
    table.to_csv(folder / "half.csv", index=False)
    half = f"csv:{folder / 'half.csv'}?mos_range=1,5"
    suite = make_suite(data, "x")
    whole = load_rows(DatasetEntry(ref=data), suite, "data")
    tested = load_rows(DatasetEntry(ref=half), suite, "data")
    assert leakage(None, tested, "data").flag == "unknown"
    assert leakage(("koniq10k", "spaq"), tested, "data").flag == "none"
    assert leakage((half,), tested, "data").flag == "same-dataset"
    # the same images through another protocol, and copied under other names
    copies = folder.parent / "copies"
    copies.mkdir()
    for i, name in enumerate(table["image"]):
        (copies / f"{i}.png").write_bytes((folder / name).read_bytes())
    table.assign(image=[f"{i}.png" for i in range(18)]).to_csv(copies / "half.csv", index=False)
    assert leakage((f"csv:{copies / 'half.csv'}?mos_range=1,5",), whole, "data").flag == "test-rows"
    seen = leakage((half,), whole, "data")
    assert seen.flag == "test-rows" and "9 of the 18 images" in seen.why


def test_a_model_that_was_trained_on_the_test_set_is_flagged(data, tmp_path, monkeypatch):
    file = data.removeprefix("csv:").partition("?")[0]
    pd.read_csv(file).assign(split="train").to_csv(Path(file).with_name("t.csv"), index=False)
    scorer = Sharpness()
    scorer.training_sets = (f"csv:{Path(file).with_name('t.csv')}?mos_range=1,5&val_fraction=0",)
    use(monkeypatch, {"fake:sharpness": scorer})
    (done,) = run_suite(make_suite(data, "fake:sharpness"), tmp_path / "r")
    assert done.cell.leakage.flag == "test-rows" and "18 of the 18" in done.cell.leakage.why


# ---- engines ----


def small(data: str, tmp_path: Path) -> Suite:
    models = [csv_entry(tmp_path, data, f"m{i}", np.arange(18.0) * (-1) ** i) for i in range(3)]
    return Suite(
        name="t", models=models, datasets=[DatasetEntry(ref=data, publish=True)], resamples=50, cost=None
    )


@pytest.mark.slow
def test_one_process_a_device_gives_the_same_files(data, tmp_path):
    suite = small(data, tmp_path)
    alone = run_suite(suite, tmp_path / "a")
    both = run_suite(suite, tmp_path / "b", devices=["cpu", "cpu"])
    assert [d.cell.model.name for d in both] == [d.cell.model.name for d in alone] == ["m0", "m1", "m2"]
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.slow
def test_ray_gives_the_same_files(data, tmp_path):
    pytest.importorskip("ray")
    suite = small(data, tmp_path)
    run_suite(suite, tmp_path / "a")
    assert len(run_suite(suite, tmp_path / "b", engine="ray")) == 3
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_metrics_that_may_patch_other_libraries_run_in_their_own_process(data, tmp_path, monkeypatch):
    """Importing pyiqa's qalign replaces the attention of every Llama of the process."""
    pytest.importorskip("pyiqa")
    assert engines.patches(Entry(ref="pyiqa:qalign")) and engines.patches(Entry(ref="pyiqa:musiq"))
    assert not any(
        engines.patches(Entry(ref=ref)) for ref in ("pyiqa:psnr", "rali-tiny-synthetic", "csv:a.csv")
    )
    started = []

    class Dies:
        def __init__(self, *args, **kwargs):
            started.append(args)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

        def submit(self, *args):
            raise BrokenProcessPool("killed")

    monkeypatch.setattr(engines, "ProcessPoolExecutor", Dies)
    (done,) = run_suite(make_suite(data, "pyiqa:qalign"), tmp_path / "r")
    assert len(started) == 1 and done.cell.status == "failed" and "its process died" in done.cell.reason
    (done,) = run_suite(make_suite(data, "pyiqa:qalign"), tmp_path / "r", devices=("cpu", "cpu"))
    assert len(started) == 4, "one a device, and one for the metric"
    assert "its process died" in done.cell.reason


@pytest.mark.slow
def test_qalign_itself_leaves_this_process_alone(data, tmp_path, monkeypatch):
    pytest.importorskip("pyiqa")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    from transformers.models.llama import modeling_llama

    before = modeling_llama.LlamaAttention, modeling_llama.LlamaModel.forward
    (done,) = run_suite(make_suite(data, "pyiqa:qalign"), tmp_path / "r")
    assert done.cell.status == "unavailable" and "needs" in done.cell.reason
    assert not any(name.startswith("pyiqa.archs.q_align") for name in sys.modules)
    assert (modeling_llama.LlamaAttention, modeling_llama.LlamaModel.forward) == before
