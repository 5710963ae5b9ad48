"""``rali-zoo score``: photos, folders, lists and shards to a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from rali_zoo.cli import run_function
from rali_zoo.data.sources import find_items
from rali_zoo.errors import ConfigError
from rali_zoo.scoring.runtime import Compile, Decode, Precision

if TYPE_CHECKING:
    from rali_zoo.scoring.pipeline import Slice
    from rali_zoo.scoring.sink import Sink
    from rali_zoo.types import Score, Scorer

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class How:
    """The options of a run, as :func:`score_command` documents them."""

    model: str
    decode: Decode
    batch_size: int
    workers: int | None
    threads: int | None
    device: str | None
    precision: Precision
    compile: Compile
    engine: Engine
    actors: int


def score_command(
    paths: list[str],
    model: str,
    output: Path | None = None,
    decode: Decode = "exact",
    batch_size: int = 16,
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    compile: Compile = "off",
    shard: str = "1/1",
    engine: Engine = "local",
    actors: int = 1,
    explain: bool = False,
) -> None:
    """Score images with a model and show, or write, one row for each.

    Args:
        paths: images, folders, globs, .txt files of paths, .parquet tables with a column path, .tar shards.
        model: ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO[@REV], onnx:FILE, openvino:FILE,
            levels:hf:ORG/MODEL, or a name of 'rali-zoo list models'.
        output: table of the columns path, score, std, error, model; .parquet or .csv. A run that was stopped
            goes on when the same command is given again.
        decode: exact = the pixels of training; fast = large JPEGs at reduced size, 8-bit resizing.
        batch_size: images a forward pass.
        workers: threads that decode; 2 on a CPU and up to 16 beside a GPU by default.
        threads: of the computation; OMP_NUM_THREADS, or the cores that are free, by default.
        device: where to compute, e.g. cuda; the CPU by default.
        precision: of the encoder; auto is bfloat16 where the chip has it.
        compile: mode of torch.compile for the encoder.
        shard: K/N scores the K-th of N shares of the images, for N jobs with an --output each.
        engine: ray runs on the cluster at RAY_ADDRESS, or on this machine; needs the extra 'ray'.
        actors: copies of the model that the engine ray keeps.
        explain: also show the prototypes and descriptions behind each score; without --output only.
    """
    if batch_size < 1 or actors < 1:
        raise ConfigError("--batch_size and --actors are at least 1")
    how = How(model, decode, batch_size, workers, threads, device, precision, compile, engine, actors)
    if output is None:
        if engine == "ray":
            raise ConfigError("--engine ray writes a table: give --output scores.parquet")
        _show(paths, shard, how, explain)
        return
    if explain:
        raise ConfigError("--explain goes to the terminal: leave out --output")
    _write(paths, shard, how, output)


def _load(how: How) -> tuple[Scorer, int]:
    """The scorer, and how many threads decode for it."""
    import torch

    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.scoring.runtime import check_device, decode_workers, set_threads, tune
    from rali_zoo.zoo import load_model

    scorer = cast("Scorer", load_model(how.model, check_device(how.device)))
    device = torch.device(how.device or "cpu")
    if isinstance(scorer, NetworkScorer):
        tune(scorer, how.precision, how.compile)
    elif how.precision == "bfloat16" or how.compile != "off":
        raise ConfigError(f"--precision and --compile are for scorers of rali_zoo; {scorer.name} is none")
    set_threads(how.threads, device)
    return scorer, decode_workers(how.workers, device)


def _show(paths: list[str], shard: str, how: How, explain: bool) -> None:
    """Score a few images and print a table."""
    from rali_zoo.scoring.pipeline import make_stages, run, slices
    from rali_zoo.scoring.progress import Progress

    items = list(find_items(paths, shard))
    scorer, workers = _load(how)
    scores: list[Score] = []
    with Progress(len(items)) as progress:
        for batch, found in run(
            slices([(0, items)], how.batch_size), make_stages(scorer, how.decode), workers
        ):
            scores += found
            progress.advance(len(batch.items))
    print_table(scores, explain, getattr(scorer, "native_scale", False))
    _say_failed(sum(s.error is not None for s in scores), len(scores))


def _write(paths: list[str], shard: str, how: How, output: Path) -> None:
    """Score what has no score yet, then make one table."""
    from rali_zoo.scoring.progress import Progress
    from rali_zoo.scoring.sink import Job, Sink

    with Sink(output) as sink:
        items = find_items(paths, shard)
        # A path that does not exist is said before the model is loaded.
        first = [] if sink.started else list(islice(items, 1))
        scorer, workers = _load(how)
        job = Job(paths, os.getcwd(), shard, how.model, scorer.revision, how.decode, how.precision)
        sink.start(job, chain(first, items), how.batch_size)
        if sink.done:
            print(f"{sink.done} of {sink.total} images are there from an earlier run", file=sys.stderr)
        with Progress(sink.total, sink.done) as progress:
            for batch, scores in _scored(sink, scorer, how, workers):
                sink.add(batch.part, batch.start, scores)
                progress.advance(len(scores))
        failed = sink.finish()
    print(f"{sink.total} rows ({failed} with an error) written to {output}")
    _say_failed(failed, sink.total)


def _scored(sink: Sink, scorer: Scorer, how: How, workers: int) -> Iterator[tuple[Slice, list[Score]]]:
    """Scores of the images that have none, by the engine that was asked for."""
    from rali_zoo.scoring.pipeline import make_stages, run, slices

    batches = slices(sink.missing(), how.batch_size)
    if how.engine == "local":
        return run(batches, make_stages(scorer, how.decode), workers)
    from rali_zoo.scoring.ray import Recipe, run_ray

    recipe = Recipe(how.model, how.decode, how.device, how.precision, how.compile, how.threads)
    return run_ray(batches, scorer, recipe, how.actors)


def _say_failed(failed: int, total: int) -> None:
    if failed:
        print(f"{failed} of {total} images have no score; their error says why", file=sys.stderr)


def print_table(scores: Sequence[Score], explain: bool, native: bool) -> None:
    """A table of scores on the terminal, with explanations below if asked for.

    Args:
        scores: one row each.
        explain: whether to explain them.
        native: whether they are in units of the scorer's own instead of MOS.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    scale = "higher is better, in units of the metric" if native else "1 (bad) to 5 (excellent)"
    table = Table("image", title=f"Quality, {scale}", title_justify="left")
    for heading in ("score", "± spread"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("error", style="red")
    for s in scores:
        values = ["" if v is None else f"{v:.2f}" for v in (s.score, s.std)]
        table.add_row(escape(s.path), *values, escape(s.error or ""))
    console = Console()
    console.print(table)
    if explain:
        for s in scores:
            console.print(s.explain(), markup=False, highlight=False)


def main(words: Sequence[str]) -> None:
    """Run the command; ``words`` are its name and what follows it."""
    run_function(score_command, words, positional=("paths",))
