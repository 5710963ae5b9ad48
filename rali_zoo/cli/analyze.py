"""``rali-zoo analyze …``: what a reasoner's texts hold, where it looks, and what RALI's parts are worth."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.analysis.common import Place, Settings, Suffix
from rali_zoo.cli import run_function
from rali_zoo.errors import ConfigError, near_miss

if TYPE_CHECKING:
    from rali_zoo.analysis.run import Done
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.recipe import Recipe

_SETS = ("synthetic:lab", "synthetic:wild", "synthetic:phone")
_STUDENTS = ("regression-tiny-synthetic", "rali-tiny-synthetic")


def _of_reasoner(name: str, about: str, note: str = "") -> Callable[..., None]:
    """The command of an analysis of one reasoner.

    Args:
        name: of its function in :mod:`rali_zoo.analysis.run`.
        about: what it does, for the help.
        note: what is to be known of the model.
    """

    def command(model: str, data: list[str], settings: Settings, place: Place) -> None:
        from rali_zoo.analysis import run

        _show(getattr(run, name)(run.subject(model, data, settings, place)))

    command.__doc__ = f"""{about}

    Args:
        model: a trained reasoner (ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO, a zoo name) or any
            vision-language model (hf:ORG/REPO, hf:local-dir:FOLDER){note}.
        data: references of data sets.
        settings: how.
        place: where.
    """
    return command


def domains(
    data: list[str],
    settings: Settings,
    place: Place,
    models: dict[str, str] | None = None,
    texts: dict[str, str] | None = None,
    results: dict[str, str] | None = None,
    text_encoder: str = "st:all-MiniLM-L6-v2",
) -> None:
    """Gap between data sets where images are seen, where they are described, and where RALI scores them.

    Args:
        data: references of two or more data sets.
        settings: how; resamples are the permutations of the test of MMD too.
        place: where.
        models: a name of your choice to a model, e.g. --models.before=ckpt:A --models.after=ckpt:B; of a
            reasoner the vectors before its language model are looked at, and what it writes unless --texts
            are given; of a scorer its embedding. The same kind under two names: CKA between the two.
        texts: a name to description tables, joined by commas.
        results: a name to the results.json of a run that was tested on the data sets, for SRCC on one scale.
        text_encoder: for the texts.
    """
    import pandas as pd

    from rali_zoo.analysis import run
    from rali_zoo.analysis.common import choose
    from rali_zoo.analysis.domains import equally_many
    from rali_zoo.data.descriptions import read_descriptions

    if not (models or texts or results):
        raise ConfigError(
            "nothing to measure: give --models.NAME=REF, --texts.NAME=TABLE or --results.NAME=FILE"
        )
    frames = equally_many(choose(data, settings))
    tables = {
        name: pd.concat([read_descriptions(path.strip()) for path in paths.split(",")], ignore_index=True)
        for name, paths in (texts or {}).items()
    }
    networks = {name: _network(ref, place) for name, ref in (models or {}).items()}
    _show(run.domains(networks, tables, results or {}, frames, text_encoder, settings, place))


def swap(models: list[str], data: list[str], settings: Settings, place: Place) -> None:
    """Texts read by another reasoner, or by a linear probe that was trained on another data set's.

    Args:
        models: references of reasoners, as in 'rali-zoo analyze text-vs-image'; with one, only linear probes
            are swapped.
        data: references of data sets; with one, only reasoners are swapped.
        settings: how.
        place: where.
    """
    from rali_zoo.analysis import run
    from rali_zoo.zoo import load_reasoner

    if not models or len(set(models)) < len(models) or len(models) + len(data) < 3:
        raise ConfigError("nothing to swap: give two reasoners with --models, or two data sets with --data")
    of = run.subject(models[0], data, settings, place)
    _show(run.swap(of, {ref: load_reasoner(ref, place.prompt, place.device) for ref in models[1:]}))


def ablations(
    output: Path,
    configs: Path = Path("configs/ablations"),
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    base: str = "full",
    options: list[str] = [],  # noqa: B006
    resamples: int = 1000,
    images: Path | None = None,
    format: Suffix = "svg",
    root: str = "data",
    seed: int = 0,
) -> None:
    """Train every config of a folder for every seed, and state in one table what each part is worth.

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
    from rali_zoo.analysis import plots, run
    from rali_zoo.analysis.ablations import variants
    from rali_zoo.pipeline import Runner

    plots.require()
    started, settings = run.clock(), Settings(resamples=resamples, root=root, seed=seed)
    found = variants(configs, base)
    Runner(_runs(found, seeds, [*options, f"--data.root={root}"], output)).run()
    _show(run.ablations(found, seeds, base, options, settings, Place(output, images, format), started))


def _runs(configs: Mapping[str, Path], seeds: Sequence[int], options: Sequence[str], output: Path) -> Recipe:
    """One ``fit`` for every config and seed.

    Args:
        configs: config by name.
        seeds: of the runs.
        options: further words of every ``fit``, such as ``--trainer.max_epochs=2``.
        output: folder of the runs.

    Raises:
        ConfigError: no seed, one twice, or words that are no options.
    """
    from rali_zoo.recipe import Recipe, Stage

    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {list(seeds)}: give one seed or more, each once")
    if wrong := [word for word in options if not word.startswith("--") or "=" not in word]:
        raise ConfigError(f"--options {wrong}: each is written --key=value, as for 'rali-zoo fit'")
    stages = []
    for seed in seeds:  # whole tables first, if it is stopped
        for name, path in configs.items():
            run = Path(output) / "runs" / f"{name}-{seed}"
            words = (
                "fit", f"--config={path}", f"--seed_everything={seed}", f"--data.seed={seed}",
                f"--trainer.default_root_dir={run}", "--trainer.enable_progress_bar=false", *options,
            )  # fmt: skip
            stages.append(
                Stage(f"{name}-{seed}", name, words, (str(run / "results.json"),), inputs=(str(path),))
            )
    again = shlex.join(["rali-zoo", "analyze", "ablations", f"--output={output}"])
    return Recipe(str(output), tuple(stages), f"{again} and the options that you gave")


def everything(
    settings: Settings,
    place: Place,
    model: str = "reasoner-tiny-synthetic",
    data: list[str] = list(_SETS),  # noqa: B006
    students: list[str] = list(_STUDENTS),  # noqa: B006
    text_encoder: str = "st:all-MiniLM-L6-v2",
) -> None:
    """All analyses but the ablations, of the models in the package unless others are given.

    Args:
        settings: how.
        place: where.
        model: a reasoner, as in 'rali-zoo analyze text-vs-image'.
        data: references of two or more data sets.
        students: scorers whose spaces to look at.
        text_encoder: for the texts.
    """
    from rali_zoo.analysis import run

    networks = {ref: _network(ref, place) for ref in students}
    of = run.subject(model, data, settings, place)
    for analyse in (run.text_vs_image, run.no_reasoning, run.attention, run.compression):
        _show(analyse(of))
    _show(run.swap(of, {}))
    every: Mapping[str, IQANetwork] = {model: of.module, **networks}
    _show(run.domains(every, {}, {}, of.frames, text_encoder, settings, place))


#: Sub-command to its function; ``--help`` of each shows its options.
ANALYSES: dict[str, Callable[..., None]] = {
    "text-vs-image": _of_reasoner(
        "text_vs_image", "Score from the text alone against scoring from the image."
    ),
    "attention": _of_reasoner(
        "attention",
        "Share of attention on image, question, reasoning and answer at the score token, by layer.",
        "; all layers' attention over all tokens of a batch is in memory at once",
    ),
    "compression": _of_reasoner(
        "compression", "Visual tokens of an image against tokens of the reasoning about it."
    ),
    "domains": domains,
    "swap": swap,
    "no-reasoning": _of_reasoner(
        "no_reasoning", "Answers with the reasoning switched off, against answers with it."
    ),
    "ablations": ablations,
    "all": everything,
}


def _network(ref: str, place: Place) -> IQANetwork:
    """A network of ours that has a space to look at."""
    from rali_zoo.models.base import BackboneNetwork
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.zoo import load_ours, load_reasoner

    if ref.partition(":")[0] in ("hf", "rali"):
        return load_reasoner(ref, place.prompt, place.device)
    network = load_ours(ref, place.device).network
    if not isinstance(network, BackboneNetwork | VLMNetwork):
        raise ConfigError(f"{ref}: a {type(network).__name__} has no backbone, so it has no space to look at")
    return network


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
              "rali-zoo analyze ANALYSIS --help shows the options of one")  # fmt: skip
        return
    if words[1] not in ANALYSES:
        print(
            f"rali-zoo analyze: error: unknown analysis {words[1]!r}. {near_miss(words[1], ANALYSES)} "
            "See rali-zoo analyze --help.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    run_function(ANALYSES[words[1]], [f"analyze {words[1]}", *words[2:]])
