"""States, lists, tables and caches with anything wrong in them: right all the same, or one error with the file."""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mutations import damaged
from PIL import Image

from rali_zoo.analysis.common import predictions_of
from rali_zoo.bench.cache import Predictions, content_digests
from rali_zoo.cli import checkpoint_settings, describe
from rali_zoo.cli.training import CommandLine
from rali_zoo.data.calibration import Scale, read_calibration, write_calibration
from rali_zoo.data.captioners import _known
from rali_zoo.data.checks import undecodable
from rali_zoo.data.descriptions import read_descriptions
from rali_zoo.data.sources import Item, find_items
from rali_zoo.data.tables import load_table
from rali_zoo.errors import RaliZooError
from rali_zoo.outputs import Output
from rali_zoo.pipeline import Runner
from rali_zoo.recipe import read_recipe
from rali_zoo.scoring.sink import Job, Sink
from rali_zoo.types import Score

COUNTS = [40, pytest.param(2000, marks=pytest.mark.slow)]
SCORES = [1 + 0.25 * i for i in range(12)]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def photos() -> pd.DataFrame:
    """A dozen photographs, of which one is none."""
    names = [f"p{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(name)
    Path(names[5]).write_bytes(b"none")
    return pd.DataFrame({"id": names, "path": [str(Path(name).absolute()) for name in names]})


def survives(
    file: Path, count: int, use: Callable[[], None], prepare: Callable[[], None] | None = None
) -> None:
    """Damage a file in many ways; ``use`` asserts that what it gives is right."""
    good, rng = file.read_bytes(), random.Random(0)
    use()
    for _ in range(count):
        if prepare is not None:
            prepare()
        wrong = damaged(good, rng)
        file.write_bytes(wrong)
        try:
            use()
        except RaliZooError as error:
            assert file.name in str(error), error
        except BaseException as error:
            raise AssertionError(f"{file.name}: {wrong[:300]!r} … {type(error).__name__}: {error}") from error


# ---- states of runs that were stopped ----


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["job.json", "images.jsonl", "00000000.parquet"])
def test_scores(name, count, tmp_path, monkeypatch):
    monkeypatch.setattr("rali_zoo.scoring.sink.PART", 4)
    images = [Item(f"{i}.jpg") for i in range(12)]

    def score(output: Path, parts: int = 3) -> None:
        with Sink(output) as sink:
            sink.start(Job(["photos"], "/", "1/1", "toy", "abc", "exact", "float32"), images)
            for number, part in list(sink.missing())[:parts]:
                sink.add(number, 0, [Score(SCORES[int(item.path[:-4])], path=item.path) for item in part])
            if sink.done == sink.total:
                sink.finish()

    score(Path("whole.csv"))
    score(Path("a.csv"), 1)
    left = {file.name: file.read_bytes() for file in Path("a.csv.parts").iterdir()}

    def again() -> None:
        score(Path("a.csv"))
        assert Path("a.csv").read_bytes() == Path("whole.csv").read_bytes()

    def stopped() -> None:
        Path("a.csv").unlink(missing_ok=True)
        Path("a.csv.parts").mkdir(exist_ok=True)
        for file in Path("a.csv.parts").iterdir():
            file.unlink()
        for file, content in left.items():
            (Path("a.csv.parts") / file).write_bytes(content)

    file = Path("a.csv.parts") / name
    good, rng = file.read_bytes(), random.Random(0)
    for _ in range(count):
        stopped()
        file.write_bytes(damaged(good, rng))
        try:
            again()
        except RaliZooError as error:
            assert "a.csv.parts" in str(error)


@pytest.mark.parametrize("count", COUNTS)
def test_descriptions_of_a_stopped_run(count):
    job = describe.DescribeJob("m", "r", "images", "q", 1.0, 1, 2, "h")
    part, ids = [(row, 0) for row in range(12)], [f"{i}.jpg" for i in range(12)]
    table = describe._rows([describe.Text(f"text {i}", SCORES[i]) for i in range(12)], part, ids, job)
    with Output("t.parquet", r"\d{6}\.parquet") as out:
        out.begin({})
        with out.part("000000.parquet") as path:
            table.to_parquet(path, index=False, write_page_checksum=True)

        def read() -> None:
            found = describe._read_part(out, "000000.parquet", part, ids, job)
            assert found is None or found.equals(table)

        survives(out.folder / "000000.parquet", count, read)


@pytest.mark.parametrize("count", COUNTS)
def test_stages(count, tmp_path):
    Path("r.yaml").write_text(
        "folder: out\nstages:\n  - {name: a, run: [score, x.png], outputs: [out/a.csv]}\n"
    )
    runner = Runner(read_recipe("r.yaml"))
    (stage,) = runner.recipe.stages
    Path("out/stages").mkdir(parents=True)
    Path("out/a.csv").write_text("1")
    state = runner.states["a"]
    outputs = {"out/a.csv": {"sha256": state.output_hash("out/a.csv"), "stamp": [1, 2]}}
    state.write(
        {
            "key": runner.key(stage),
            "status": "done",
            "words": list(stage.run),
            "outputs": outputs,
            "seconds": 1,
        }
    )
    survives(state.path, count, lambda: Runner(runner.recipe).plan() and None)


# ---- caches ----


@pytest.mark.parametrize("count", COUNTS)
def test_what_was_looked_at(count, photos, tmp_path, caplog):
    def look() -> None:
        assert undecodable(photos)["id"].tolist() == ["p5.png"]

    look()
    (memory,) = (tmp_path / "cache" / "checked").iterdir()
    survives(memory, count, look)


@pytest.mark.parametrize("count", COUNTS)
def test_digests_and_predictions(count, photos, tmp_path):
    paths = photos["path"].tolist()
    Path(os.fsdecode(b"\xff.png")).write_bytes(b"x")
    digests = content_digests([*paths, os.fsdecode(b"\xff.png")])

    def digest() -> None:
        assert content_digests([*paths, os.fsdecode(b"\xff.png")]) == digests

    survives(tmp_path / "cache" / "predictions" / "contents.sqlite", count, digest)
    store = Predictions("m")
    store._new = dict(zip(map(str, digests), SCORES, strict=False))
    expected = dict(store._new)
    store.flush()
    (shard,) = store.folder.glob("*.parquet")

    def read() -> None:
        assert {key: outcome.score for key, outcome in Predictions("m").known.items()} in ({}, expected)

    survives(shard, count, read)


@pytest.mark.parametrize("count", COUNTS)
def test_measurements(count):
    memory, names = Path("m.parquet"), ["sharpness", "noise"]
    table = pd.DataFrame(np.ones((3, 2)), index=list("abc"), columns=names)
    table.to_parquet(memory, write_page_checksum=True)

    def read() -> None:
        found = _known(memory, names)
        assert not len(found) or np.array_equal(found.to_numpy(), table.to_numpy())

    survives(memory, count, read)


# ---- what somebody else has written ----


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables(suffix, count, photos):
    table = pd.DataFrame({"image": photos["id"], "mos": SCORES})
    file = Path(f"s.{suffix}")
    if suffix == "csv":
        table.to_csv(file, index=False)
    elif suffix == "jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_parquet(file, index=False)

    def read() -> None:
        frame = load_table(f"csv:{file}?mos_range=1,5").frame
        mos = frame["mos"]
        assert (mos.between(1, 5) | mos.isna().all()).all()
        assert sum(not Path(path).is_file() for path in frame["path"]) <= 1  # a tenth may be missing

    survives(file, count, read)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_texts(suffix, count):
    file = Path(f"t.{suffix}")
    rows = {"dataset": "d", "image_id": list("abc"), "text": "words", "score": 3.0, "teacher": "t"}
    table = pd.DataFrame({**rows, "revision": "r", "seed": 0})
    if suffix == "jsonl":
        table.to_json(file, orient="records", lines=True)
    else:
        table.to_parquet(file, index=False)

    def read() -> None:
        found = read_descriptions(file)
        assert found["text"].str.len().gt(0).all()

    survives(file, count, read)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["l.txt", "l.csv", "l.jsonl", "l.tsv", "l.parquet", "s.tar"])
def test_lists_and_shards(name, count, photos):
    file, names = Path(name), photos["id"].tolist()
    if name == "s.tar":
        with tarfile.open(file, "w") as shard:
            for each in names:
                shard.add(each)
    elif file.suffix == ".parquet":
        pd.DataFrame({"path": names}).to_parquet(file)
    elif file.suffix == ".txt":
        file.write_text("\n".join(names))
    elif file.suffix == ".jsonl":
        file.write_text("\n".join(json.dumps({"path": each}) for each in names))
    else:
        pd.DataFrame({"path": names, "n": 1}).to_csv(
            file, index=False, sep="\t" if file.suffix == ".tsv" else ","
        )

    def read() -> None:
        for item in find_items([str(file)]):
            assert isinstance(item.path, str)
            if not item.error:
                item.source()

    survives(file, count, read)


@pytest.mark.parametrize("count", COUNTS)
def test_calibrations(count):
    write_calibration({"a": Scale(1.0, 0.1, 0.9, 10), "b": Scale(0.5, 1.0, float("nan"), 10)}, "m", "c.json")

    def read() -> None:
        for scale in read_calibration("c.json", ["a"]).values():
            assert 0 < scale.scale < 10**6 and np.isfinite(scale.offset)

    survives(Path("c.json"), count, read)


@pytest.mark.parametrize("count", COUNTS)
def test_results_of_a_run(count):
    run = Path("run")
    run.mkdir()
    facts = {"n": 12, "predictions": "predictions/koniq10k-abc.parquet"}
    (run / "results.json").write_text(json.dumps({"datasets": {"koniq10k": facts}}))

    def read() -> None:
        for file in predictions_of(run / "results.json").values():
            assert file.resolve().is_relative_to(run.resolve())

    survives(run / "results.json", count, read)


@pytest.mark.parametrize("count", COUNTS)
def test_recipes(count):
    Path("r.yaml").write_text(
        "vars: {out: runs/demo, n: 60, seed: 0}\nfolder: ${out}\nstages:\n"
        "  - {name: a, run: [fit, --trainer.default_root_dir=o, '--data.limit=${n}'], outputs: [a.ckpt]}\n"
        "  - {name: b, needs: [a], run: [score, x.png], outputs: ['${seed}${d}'], foreach: {d: [x, y]}}\n"
    )
    survives(Path("r.yaml"), count, lambda: read_recipe("r.yaml") and None)


@pytest.mark.parametrize("count", COUNTS)
def test_settings_of_a_run(count, monkeypatch):
    from rali_zoo.trainers.base import IQAModule

    checkpoints = Path("run/checkpoints")
    checkpoints.mkdir(parents=True)
    torch.save({"state_dict": {}, "rali_zoo": {}, "hyper_parameters": {"lr": 0.1}}, checkpoints / "best.ckpt")
    config = Path("run/config.yaml")
    model = {"class_path": "rali_zoo.trainers.Regression", "init_args": {"backbone": "rali:tiny", "lr": 0.1}}
    rest = {"trainer": {"max_epochs": 3, "precision": "32"}, "data": {"train": ["koniq10k"], "batch_size": 8}}
    config.write_text(json.dumps({"model": model, **rest}))
    line = CommandLine.read(["test", "--ckpt_path=run/checkpoints/best.ckpt"])

    def read() -> None:
        found = checkpoint_settings.read(line, IQAModule)
        assert found is not None and set(found.config.get("trainer", {})) <= {"precision"}

    survives(config, count, read)
