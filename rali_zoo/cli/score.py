"""``rali-zoo score``: photos, folders, lists and shards to a table."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from rali_zoo.cli.sorting import After, Sorting
from rali_zoo.data.sources import Item, Skipped, find_items
from rali_zoo.errors import ConfigError
from rali_zoo.outputs import printable
from rali_zoo.scoring.runtime import Compile, Decode, Precision, Sort
from rali_zoo.types import MOS_RANGE, Runtime
from rali_zoo.zoo import DEFAULT_MODEL, with_scheme

if TYPE_CHECKING:
    from rali_zoo.protocols import Scorer
    from rali_zoo.scoring.pipeline import Slice, Stages
    from rali_zoo.scoring.sink import Sink
    from rali_zoo.types import Score

Engine = Literal["local", "ray"]
#: Images from which ``--runtime auto`` takes ONNX Runtime: to make the graph, once, takes as long as it saves on some
#: 50 images of a small convolutional network, and on 300 of ``rali:tiny``.
MANY = 256


@dataclass(frozen=True)
class How:
    """The options of a run, as :func:`command` documents them."""

    model: str
    decode: Decode
    batch_size: int
    workers: int | None
    threads: int | None
    device: str
    precision: Precision
    compile: Compile
    engine: Engine
    actors: int
    sort: Sort
    overwrite: bool
    runtime: Runtime
    sorting: Sorting
    attributes: bool

    def stages(self, scorer: Scorer) -> Stages:
        """What is done to an image."""
        from rali_zoo.scoring.attributes import measured
        from rali_zoo.scoring.pipeline import make_stages

        stages = make_stages(scorer, self.decode)
        return measured(stages) if self.attributes else stages


def command(
    paths: list[str],
    /,
    model: str = DEFAULT_MODEL,
    output: Path | None = None,
    decode: Decode = "exact",
    batch_size: int = 16,
    workers: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    compile: Compile = "off",
    shard: str = "1/1",
    engine: Engine = "local",
    actors: int = 1,
    explain: bool = False,
    attributes: bool = False,
    sort: Sort = "none",
    overwrite: bool = False,
    runtime: Runtime = "auto",
    sorting: Sorting = Sorting(),  # noqa: B008 (frozen)
) -> None:
    """Score images with a model and show, or write, one row for each.

    Args:
        paths: images, folders, globs, .txt files of paths, .csv, .jsonl or .parquet tables with a column path,
            .tar shards; - reads paths from standard input.
        model: a file or run of your own, ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO[@REV], onnx:FILE, openvino:FILE,
            levels:hf:ORG/MODEL, or a name of 'rali-zoo list models'.
        output: table of the columns path, score, std, error, model; .parquet, .csv or .jsonl, or - for lines of
            JSON on standard output. A run that was stopped goes on when the same command is given again.
        decode: exact = the pixels of training; fast = large JPEGs at reduced size, 8-bit resizing.
        batch_size: images a forward pass.
        workers: threads that decode; 2 on a CPU and up to 16 beside a GPU by default.
        threads: of the computation; OMP_NUM_THREADS, or the cores that are free, by default.
        device: where to compute, e.g. cuda or cpu; auto is a GPU where there is one.
        precision: of the encoder; auto is bfloat16 where the chip has it.
        compile: mode of torch.compile for the encoder.
        shard: K/N scores the K-th of N shares of the images, for N jobs with an --output each.
        engine: ray runs on the cluster at RAY_ADDRESS, or on this machine; needs the extra 'ray'.
        actors: copies of the model that the engine ray keeps.
        explain: also show the prototypes and descriptions behind each score, or the text of a reasoner; not into
            a file.
        attributes: also measure sharpness, noise, blockiness, contrast, colourfulness and exposure, with words.
        sort: worst or best first; none is the order in which the images were found.
        overwrite: replace an --output, a sheet or maps that are there.
        runtime: what encodes images on a CPU. auto is ONNX Runtime (extra 'onnx') from 256 images on, where its scores
            are torch's within 1e-5; onnx always, torch never.
        sorting: what is done with all scores once they are there.
    """
    if attributes and engine == "ray":
        raise ConfigError("--attributes are measured on this machine: leave out --engine ray")
    if batch_size < 1 or actors < 1:
        raise ConfigError("--batch_size and --actors are at least 1")
    how = How(
        with_scheme(model), decode, batch_size, workers, threads, device, precision, compile, engine, actors, sort,
        overwrite, runtime, sorting, attributes,
    )  # fmt: skip
    sorting.check(overwrite)
    skipped = Skipped()
    if output is None or str(output) == "-":
        if engine == "ray":
            raise ConfigError("--engine ray writes a table: give --output scores.parquet")
        counts = _show(find_items(paths, shard, skipped), how, explain, output is not None)
    elif explain:
        raise ConfigError("--explain goes to the terminal or to --output -: leave out --output FILE")
    else:
        counts = _write(paths, shard, how, output, skipped)
    if skipped:
        print(skipped, file=sys.stderr)
    failed, total = counts
    if failed:
        print(f"{failed} of {total} images have no score; their error says why", file=sys.stderr)
    if total == 0:  # no error: with more jobs than images some have nothing to do
        print(f"share {shard} holds none of the images", file=sys.stderr)
    elif failed == total:
        raise ConfigError(f"none of {total} images could be scored")


def _load(how: How) -> tuple[Scorer, int]:
    """The scorer, and how many threads decode for it."""
    import torch

    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.scoring.runtime import advice, check_device, decode_workers, set_threads, tune
    from rali_zoo.zoo import load_model

    name = check_device(how.device, how.model)
    scorer = cast("Scorer", load_model(how.model, name))
    device = torch.device(name)
    if isinstance(scorer, NetworkScorer):
        tune(scorer, how.precision, how.compile)
        if hint := advice(scorer, how.precision):
            print(hint, file=sys.stderr)
    elif how.precision == "bfloat16" or how.compile != "off":
        raise ConfigError(f"--precision and --compile are for scorers of rali_zoo; {scorer.name} is none")
    set_threads(how.threads, device)
    if how.runtime == "onnx":
        _use_onnx(scorer, how.runtime)  # what forbids it is said before images are looked for
    if any(name.startswith("synthetic:") for name in scorer.training_sets or ()):
        print(f"{how.model} was trained on synthetic labels and is no judge of photographs", file=sys.stderr)
    return scorer, decode_workers(how.workers, device)


def runtime_for(runtime: Runtime, images: int) -> Runtime:
    """What computes so many images: ``auto`` is torch below :data:`MANY`, where a graph does not pay."""
    return "torch" if runtime == "auto" and images < MANY else runtime


def _use_onnx(scorer: Scorer, runtime: Runtime) -> None:
    if runtime == "torch":
        return
    from rali_zoo.export.encoder import use_onnx
    from rali_zoo.models.scorer import NetworkScorer

    if isinstance(scorer, NetworkScorer):
        use_onnx(scorer, runtime)
    elif runtime == "onnx":
        raise ConfigError(f"--runtime onnx is for models of rali_zoo; {scorer.name} is none")


def _show(found: Iterator[Item], how: How, explain: bool, as_json: bool) -> tuple[int, int]:
    """Score a few images and print them; how many failed, and of how many."""
    from rali_zoo.scoring.pipeline import run, slices
    from rali_zoo.scoring.progress import Progress
    from rali_zoo.scoring.sink import json_row

    items = list(found)
    scorer, workers = _load(how)
    if how.model.startswith("csv:"):
        _announce(scorer, items)
    _use_onnx(scorer, runtime_for(how.runtime, len(items)))
    stages = how.stages(scorer)
    shown = (lambda score: json_row(score, explain)) if as_json else (lambda score: _row(score, explain))
    scores: list[Score] = []
    if not as_json:
        scale = "1 (bad) to 5 (excellent)" if scorer.score_range == MOS_RANGE else "in units of the metric"
        print(f"quality, {scale}, higher is better")
    at_once = how.sort == "none" and not how.sorting.chooses
    with Progress(len(items)) as progress:
        for batch, new in run(slices([(0, items)], how.batch_size), stages, workers):
            scores += new
            if at_once:
                print("\n".join(map(shown, new)), flush=True)
            progress.advance(len(batch.items))
    if how.sort != "none" and not how.sorting.chooses:
        sign = -1 if how.sort == "best" else 1
        print(
            "\n".join(
                map(shown, sorted(scores, key=lambda s: math.inf if s.score is None else sign * s.score))
            )
        )
    if how.sorting.wanted and scores:
        after = After(how.sorting, scorer, stages, how.batch_size, workers, how.overwrite)
        after.finish(list(zip(items, scores, strict=True)), how.sort, shown, heads=not as_json)
    return sum(s.error is not None for s in scores), len(scores)


def _row(score: Score, explain: bool) -> str:
    """A line for a terminal; nothing in it moves the cursor."""
    if score.score is None:
        return f"  --            {printable(score.path)}  error: {printable(score.error or '')}"
    std = "       " if score.std is None else f"± {score.std:<5.2f}"
    line = f"{score.score:7.3f} {std} {printable(score.path)}"
    if score.attributes:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in score.attributes.items())
        line += f"\n        {numbers}\n        {score.words}"
    if score.warning:
        line += f"\n        {score.warning}"
    more = "".join(f"\n{printable(part)}" for part in score.explain().split("\n")[1:]) if explain else ""
    return line + more


def _announce(scorer: Scorer, items: Iterable[Item]) -> None:
    """Tell a table of scores all names first: a bare one in it is to stand for one image only."""
    from rali_zoo.baselines.csv import TableScorer

    if isinstance(scorer, TableScorer):
        scorer.announce(item.path for item in items)


def _write(paths: list[str], shard: str, how: How, output: Path, skipped: Skipped) -> tuple[int, int]:
    """Score what has no score yet, then make one table; how many failed, and of how many."""
    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.scoring.progress import Progress
    from rali_zoo.scoring.sink import Job, Sink

    with Sink(output, how.overwrite) as sink:
        items = find_items(paths, shard, skipped)
        # That there is no image at all is said before the model is loaded.
        first = [] if sink.started else list(islice(items, 1))
        scorer, workers = _load(how)
        job = Job(
            paths,
            os.getcwd(),
            shard,
            how.model,
            scorer.revision,
            how.decode,
            how.precision,
            how.runtime,
            how.attributes,
            isinstance(scorer, NetworkScorer) and scorer.network.smallest > 0 and how.engine == "local",
        )
        sink.start(job, chain(first, items), how.batch_size)
        if how.model.startswith("csv:"):
            _announce(scorer, sink.items())
        if sink.done:
            print(f"{sink.done} of {sink.total} images are there from an earlier run", file=sys.stderr)
        how = replace(how, runtime=runtime_for(how.runtime, sink.total))
        with Progress(sink.total, sink.done) as progress:
            for batch, scores in _scored(sink, scorer, how, workers):
                sink.add(batch.part, batch.start, scores)
                progress.advance(len(scores))
        if how.sorting.wanted and sink.total and not sink.output.complete:
            after = After(how.sorting, scorer, how.stages(scorer), how.batch_size, workers, how.overwrite)
            after.finish(list(sink.scores()), how.sort, lambda score: _row(score, False), explained=False)
        failed = sink.finish(how.sort)
    print(f"{sink.total} rows ({failed} with an error) written to {output}")
    return failed, sink.total


def _scored(sink: Sink, scorer: Scorer, how: How, workers: int) -> Iterator[tuple[Slice, list[Score]]]:
    """Scores of the images that have none, by the engine that was asked for."""
    from rali_zoo.scoring.pipeline import run, slices

    batches = slices(sink.missing(), how.batch_size)
    if how.engine == "local":
        _use_onnx(scorer, how.runtime)
        return run(batches, how.stages(scorer), workers)
    from rali_zoo.scoring.ray import WorkerModel, run_ray

    recipe = WorkerModel(
        how.model, how.decode, how.device, how.precision, how.compile, how.threads, how.runtime
    )
    return run_ray(batches, scorer, recipe, how.actors)
