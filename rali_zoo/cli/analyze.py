"""``rali-zoo analyze …``: what a reasoner's texts carry, where it looks, and what RALI's parts are worth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rali_zoo.cli import run_function
from rali_zoo.errors import ConfigError, near_miss

if TYPE_CHECKING:
    from rali_zoo.analysis.common import Settings
    from rali_zoo.analysis.run import Done, Subject
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.vlm import VLMNetwork

Split = Literal["train", "val", "test", "all"]
ScoreKind = Literal["greedy", "expectation"]
Suffix = Literal["svg", "png"]
_SETS = ("synthetic:lab", "synthetic:wild", "synthetic:phone")


def text_vs_image(
    model: str, data: list[str], output: Path, split: Split = "test", limit: int = 200,
    scoring: ScoreKind = "greedy", batch_size: int = 16, resamples: int = 1000, prompt: str = "score",
    images: Path | None = None, format: Suffix = "svg", root: str = "data", device: str | None = None,
    seed: int = 0,
) -> None:  # fmt: skip
    """Score from the text alone against scoring from the image.

    Args:
        model: a trained reasoner (ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO, a zoo name) or any
            vision-language model (hf:ORG/REPO, hf:local-dir:FOLDER).
        data: references of data sets.
        output: folder for the results file (json).
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        scoring: read the likeliest answer, or weigh its digits (fewer ties).
        batch_size: images a forward pass.
        resamples: of bootstrap and permutations.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images, folds, resamples and permutations.
    """
    from rali_zoo.analysis import run

    settings = _settings(split, limit, batch_size, scoring, resamples, root, seed)
    _show(run.text_vs_image(_subject(model, data, settings, output, images, format, prompt, device)))


def no_reasoning(
    model: str, data: list[str], output: Path, split: Split = "test", limit: int = 200,
    scoring: ScoreKind = "greedy", batch_size: int = 16, resamples: int = 1000, prompt: str = "score",
    images: Path | None = None, format: Suffix = "svg", root: str = "data", device: str | None = None,
    seed: int = 0,
) -> None:  # fmt: skip
    """Answers with the reasoning switched off, against answers with it.

    Args:
        model: a reasoner, as in 'rali-zoo analyze text-vs-image'.
        data: references of data sets.
        output: folder for the results file (json).
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        scoring: read the likeliest answer, or weigh its digits (fewer ties).
        batch_size: images a forward pass.
        resamples: of the bootstrap.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images and resamples.
    """
    from rali_zoo.analysis import run

    settings = _settings(split, limit, batch_size, scoring, resamples, root, seed)
    _show(run.no_reasoning(_subject(model, data, settings, output, images, format, prompt, device)))


def attention(
    model: str, data: list[str], output: Path, split: Split = "test", limit: int = 200,
    batch_size: int = 16, resamples: int = 1000, prompt: str = "score", images: Path | None = None,
    format: Suffix = "svg", root: str = "data", device: str | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """Share of attention on image, question, reasoning and answer at the score token, by layer.

    Args:
        model: a reasoner, as in 'rali-zoo analyze text-vs-image'.
        data: references of data sets.
        output: folder for the results file (json).
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        batch_size: images a forward pass; all layers' attention over all tokens is in memory at once.
        resamples: of the bootstrap.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images and resamples.
    """
    from rali_zoo.analysis import run

    settings = _settings(split, limit, batch_size, "greedy", resamples, root, seed)
    _show(run.attention(_subject(model, data, settings, output, images, format, prompt, device)))


def compression(
    model: str, data: list[str], output: Path, split: Split = "test", limit: int = 200,
    batch_size: int = 16, resamples: int = 1000, prompt: str = "score", images: Path | None = None,
    format: Suffix = "svg", root: str = "data", device: str | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """Visual tokens of an image against tokens of the reasoning about it.

    Args:
        model: a reasoner, as in 'rali-zoo analyze text-vs-image'.
        data: references of data sets.
        output: folder for the results file (json).
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        batch_size: images a forward pass.
        resamples: of the bootstrap.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images and resamples.
    """
    from rali_zoo.analysis import run

    settings = _settings(split, limit, batch_size, "greedy", resamples, root, seed)
    _show(run.compression(_subject(model, data, settings, output, images, format, prompt, device)))


def domains(
    model: str, data: list[str], output: Path, students: list[str] | None = None, split: Split = "test",
    limit: int = 200, text_encoder: str = "st:all-MiniLM-L6-v2", batch_size: int = 16,
    resamples: int = 1000, prompt: str = "score", images: Path | None = None, format: Suffix = "svg",
    root: str = "data", device: str | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """Gap between data sets where images are seen, where they are described, and where RALI scores them.

    Args:
        model: a reasoner, as in 'rali-zoo analyze text-vs-image'; its vision and text spaces.
        data: references of two or more data sets.
        output: folder for the results file (json).
        students: scorers whose spaces to look at, such as a RALI.
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        text_encoder: for the texts.
        batch_size: images a forward pass.
        resamples: permutations of the test of MMD.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images, folds, permutations and t-SNE.
    """
    from rali_zoo.analysis import run

    settings = _settings(split, limit, batch_size, "greedy", resamples, root, seed)
    scorers = _students(students or [], device)
    of = _subject(model, data, settings, output, images, format, prompt, device)
    _show(run.domains(of, scorers, text_encoder))


def swap(
    models: list[str], data: list[str], output: Path, split: Split = "test", limit: int = 200,
    scoring: ScoreKind = "greedy", batch_size: int = 16, resamples: int = 1000, prompt: str = "score",
    images: Path | None = None, format: Suffix = "svg", root: str = "data", device: str | None = None,
    seed: int = 0,
) -> None:  # fmt: skip
    """Texts read by another reasoner, or by a read-out that was trained on another data set's.

    Args:
        models: references of reasoners, as in 'rali-zoo analyze text-vs-image'; with one, only read-outs
            are swapped.
        data: references of data sets; with one, only reasoners are swapped.
        output: folder for the results file (json).
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        scoring: read the likeliest answer, or weigh its digits (fewer ties).
        batch_size: texts a forward pass.
        resamples: of the bootstrap.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images, folds and resamples.
    """
    from rali_zoo.analysis import run
    from rali_zoo.zoo import load_reasoner

    if not models or len(set(models)) < len(models) or len(models) + len(data) < 3:
        raise ConfigError("nothing to swap: give two reasoners with --models, or two data sets with --data")
    settings = _settings(split, limit, batch_size, scoring, resamples, root, seed)
    of = _subject(models[0], data, settings, output, images, format, prompt, device)
    others: dict[str, VLMNetwork] = {ref: load_reasoner(ref, prompt, device) for ref in models[1:]}
    _show(run.swap(of, others))


def ablations(
    output: Path, configs: Path = Path("configs/ablations"), seeds: list[int] = [0, 1, 2],  # noqa: B006
    base: str = "full", options: list[str] = [], resamples: int = 1000,  # noqa: B006
    images: Path | None = None, format: Suffix = "svg", root: str = "data", seed: int = 0,
) -> None:  # fmt: skip
    """Train every config of a folder for every seed, and say in one table what each part is worth.

    Args:
        output: folder of the runs, their logs and the results file; the same command goes on where it was
            stopped.
        configs: folder of configs for 'rali-zoo fit'.
        seeds: of the runs.
        base: config of the complete method, from which the differences are taken.
        options: further options of every fit, e.g. ['--trainer.max_epochs=2'].
        resamples: of the bootstrap over seeds and contents.
        images: folder for the plot; that of the results by default.
        format: of the plot.
        root: folder that holds the data sets' folders.
        seed: of the resampling.
    """
    from rali_zoo.analysis import run
    from rali_zoo.analysis.common import Settings

    settings = Settings(resamples=resamples, root=root, seed=seed)
    _show(run.ablations(configs, seeds, output, base, options, settings, images, format))


def everything(
    output: Path, model: str = "reasoner-tiny-synthetic", data: list[str] = list(_SETS),  # noqa: B006
    students: list[str] = ["regression-tiny-synthetic", "rali-tiny-synthetic"],  # noqa: B006
    split: Split = "test", limit: int = 200, scoring: ScoreKind = "greedy",
    text_encoder: str = "st:all-MiniLM-L6-v2", batch_size: int = 16, resamples: int = 1000,
    prompt: str = "score", images: Path | None = None, format: Suffix = "svg", root: str = "data",
    device: str | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """All analyses but the ablations, of the models in the package unless others are given.

    Args:
        output: folder for the results files (json).
        model: a reasoner, as in 'rali-zoo analyze text-vs-image'.
        data: references of two or more data sets.
        students: scorers whose spaces to look at.
        split: rows to look at.
        limit: images of each data set, drawn with the seed.
        scoring: read the likeliest answer, or weigh its digits (fewer ties).
        text_encoder: for the texts.
        batch_size: images a forward pass.
        resamples: of bootstrap and permutations.
        prompt: the question to a model given as hf:; a trained reasoner brings its own.
        images: folder for the plots; that of the results by default.
        format: of the plots.
        root: folder that holds the data sets' folders.
        device: where to compute, e.g. cuda; the CPU by default.
        seed: of the choice of images, folds, resamples, permutations and t-SNE.
    """
    from rali_zoo.analysis import run

    settings = _settings(split, limit, batch_size, scoring, resamples, root, seed)
    scorers = _students(students, device)
    of = _subject(model, data, settings, output, images, format, prompt, device)
    for analyse in (run.text_vs_image, run.no_reasoning, run.attention, run.compression):
        _show(analyse(of))
    _show(run.swap(of, {}))
    _show(run.domains(of, scorers, text_encoder))


#: Sub-command to its function; ``--help`` of each says more.
ANALYSES: dict[str, Callable[..., None]] = {
    "text-vs-image": text_vs_image,
    "attention": attention,
    "compression": compression,
    "domains": domains,
    "swap": swap,
    "no-reasoning": no_reasoning,
    "ablations": ablations,
    "all": everything,
}


def _settings(
    split: Split, limit: int, batch_size: int, scoring: ScoreKind, resamples: int, root: str, seed: int
) -> Settings:
    from rali_zoo.analysis.common import Settings

    return Settings(split, limit, batch_size, scoring, resamples, root, seed)


def _subject(
    model: str, data: list[str], settings: Settings, output: Path, images: Path | None, suffix: Suffix,
    prompt: str, device: str | None,
) -> Subject:  # fmt: skip
    from rali_zoo.analysis.run import subject

    return subject(model, data, settings, output, images, suffix, prompt, device)


def _students(refs: Sequence[str], device: str | None) -> dict[str, IQANetwork]:
    """Scorers of ours by reference."""
    from rali_zoo.models.base import BackboneNetwork
    from rali_zoo.zoo import load_model

    found: dict[str, IQANetwork] = {}
    for ref in refs:
        module = getattr(load_model(ref, device), "module", None)
        if not isinstance(module, BackboneNetwork):
            raise ConfigError(f"--students {ref}: no RALI or Regression, so it has no space to look at")
        found[ref] = module
    return found


def _show(done: Done) -> None:
    """Print the table and where the files are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    heading, rows = done.table
    table = Table(title=done.result.stem)
    for name in heading:
        table.add_column(escape(name), overflow="fold")
    last = None
    for row in rows:
        if row[0] != last:
            table.add_section()
        table.add_row(escape(row[0]) if row[0] != last else "", *map(escape, row[1:]))
        last = row[0]
    Console().print(table)
    print(f"written: {done.result}\nwritten: {done.plot}")


def main(words: Sequence[str]) -> None:
    """Run a sub-command; ``words`` are ``analyze``, its name and what follows it."""
    if len(words) < 2 or words[1] in ("-h", "--help"):
        rows = "\n".join(f"  {name:14} {(f.__doc__ or '').splitlines()[0]}" for name, f in ANALYSES.items())
        print(f"usage: rali-zoo analyze ANALYSIS [options]\n\nanalyses:\n{rows}\n\n"
              "rali-zoo analyze ANALYSIS --help says more of one")  # fmt: skip
        return
    if words[1] not in ANALYSES:
        print(
            f"rali-zoo analyze: error: unknown analysis {words[1]!r}. {near_miss(words[1], ANALYSES)} "
            "See rali-zoo analyze --help.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    run_function(ANALYSES[words[1]], [f"analyze {words[1]}", *words[2:]])
