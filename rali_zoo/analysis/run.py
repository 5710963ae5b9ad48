"""One analysis from references to files: models and images in; results file, plot and table out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.analysis import plots
from rali_zoo.analysis.common import Place, Settings, choose, write_result
from rali_zoo.zoo import load_reasoner

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.analysis.texts import Texts
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.vlm import VLMNetwork

#: Heading, then rows of cells, for the screen.
Shown = tuple[Sequence[str], Sequence[Sequence[str]]]
Clock = tuple[float, float]
SCORE_LABEL = "SRCC with the MOS, 95 % interval"


def clock() -> Clock:
    """Seconds of the wall and of this process's processor time."""
    return time.monotonic(), time.process_time()


def since(started: Clock) -> dict[str, float]:
    """What has passed since, as in a results file."""
    wall, processor = (now - then for now, then in zip(clock(), started, strict=True))
    return {"seconds": round(wall, 1), "cpu_seconds": round(processor, 1)}


@dataclass(frozen=True)
class Done:
    """What an analysis left behind.

    Attributes:
        result: the json file.
        plot: the image.
        table: for the screen.
    """

    result: Path
    plot: Path
    table: Shown


@dataclass
class Subject:
    """A reasoner and images for it, loaded once for several analyses.

    Attributes:
        models: reference to hash of the weights.
        module: the reasoner.
        frames: images by data set.
        settings: how.
        place: where files go.
    """

    models: dict[str, str]
    module: VLMNetwork
    frames: dict[str, pd.DataFrame]
    settings: Settings
    place: Place

    def finish(
        self,
        name: str,
        results: Mapping[str, object],
        started: Clock,
        draw: Callable[[Path], Path],
        table: Shown,
        models: Mapping[str, str] | None = None,
    ) -> Done:
        """Write the results file and the plot."""
        about = (self.settings.listed(), self.frames, models or self.models)
        result = write_result(self.place.output, name, *about, results, since(started))
        return Done(result, draw(self.place.plot(name)), table)


def subject(model: str, data: Sequence[str], settings: Settings, place: Place) -> Subject:
    """Load a reasoner and choose images.

    Args:
        model: reference of the reasoner.
        data: references of the data sets.
        settings: how many images, and how they are drawn.
        place: where to compute, and where files go.
    """
    plots.require()
    frames = choose(data, settings)
    module = load_reasoner(model, place.prompt, place.device)
    return Subject({model: module.revision}, module, frames, settings, place)


# ---- the analyses ----


def text_vs_image(of: Subject) -> Done:
    """:func:`rali_zoo.analysis.texts.text_vs_image`, written and drawn."""
    from rali_zoo.analysis import texts

    started = clock()
    results = texts.text_vs_image(of.module, of.frames, of.settings)
    heading, rows = _score_table(results)
    conflict = [
        (ref, f"text, another image: MOS of the {name}", "", cell(row["conflict"][name]), "")
        for ref, row in results.items()
        for name in ("text", "image")
    ]
    table = (heading, [*rows, *conflict])
    return of.finish("text-vs-image", results, started, lambda path: _dots(results, path), table)


def no_reasoning(of: Subject) -> Done:
    """:func:`rali_zoo.analysis.texts.no_reasoning`, written and drawn."""
    from rali_zoo.analysis import texts

    started = clock()
    results = texts.no_reasoning(of.module, of.frames, of.settings)
    return of.finish(
        "no-reasoning", results, started, lambda path: _dots(results, path), _score_table(results)
    )


def swap(of: Subject, others: Mapping[str, VLMNetwork]) -> Done:
    """:func:`rali_zoo.analysis.texts.swap` of the reasoner and others, written and drawn.

    Args:
        of: the reasoner and the images.
        others: further reasoners by reference.
    """
    from rali_zoo.analysis import texts

    started = clock()
    (own,) = of.models
    results = texts.swap({own: of.module, **others}, of.frames, of.settings)
    flat = {
        (f"{ref}, by {writer}" if others else ref): row
        for ref, writers in results.items()
        for writer, row in writers.items()
    }
    models = {**of.models, **{name: module.revision for name, module in others.items()}}
    return of.finish("swap", results, started, lambda path: _dots(flat, path), _score_table(flat), models)


def attention(of: Subject) -> Done:
    """:func:`rali_zoo.analysis.attention.attention`, written and drawn."""
    from rali_zoo.analysis import attention as looks

    started = clock()
    results = looks.attention(of.module, of.frames, of.settings)
    rows = []
    for ref, row in results.items():
        named = [(f"score, layer {k}", v) for k, v in row["score"].items()]
        for where, shares in [*named, ("reasoning, layer all", row["text"]["all"]), ("if even", row["even"])]:
            rows.append((ref, where, *(cell(shares[part]) for part in looks.PARTS)))
    heading = ("data set", "at", *looks.PARTS)
    return of.finish(
        "attention", results, started, lambda path: plots.stacked(results, looks.PARTS, path), (heading, rows)
    )


def compression(of: Subject) -> Done:
    """:func:`rali_zoo.analysis.attention.compression`, written and drawn."""
    from rali_zoo.analysis import attention as looks

    started = clock()
    results = looks.compression(of.module, of.frames, of.settings)
    rows = [
        (ref, str(row["n"]), *(cell(row[k], 2) for k in ("visual", "text", "ratio")))
        for ref, row in results.items()
    ]
    heading = ("data set", "n", "visual tokens", "text tokens", "visual / text")
    return of.finish(
        "compression", results, started, lambda path: plots.histograms(results, path), (heading, rows)
    )


def domains(
    networks: Mapping[str, IQANetwork],
    texts: Mapping[str, pd.DataFrame],
    results: Mapping[str, str],
    frames: Mapping[str, pd.DataFrame],
    encoder: str,
    settings: Settings,
    place: Place,
) -> Done:
    """Gaps between data sets in every space, and how well runs agree with all on one scale; written and drawn.

    Args:
        networks: reasoners and scorers by name.
        texts: tables of descriptions by name.
        results: ``results.json`` of runs by name.
        frames: images by data set.
        encoder: text encoder by reference.
        settings: how.
        place: where files go.
    """
    from rali_zoo.analysis import domains as gaps
    from rali_zoo.text import create_text_encoder

    plots.require()
    started = clock()
    scores = {name: gaps.on_one_scale(path, list(frames)) for name, path in results.items()}
    words = create_text_encoder(encoder)
    found = gaps.spaces(networks, texts, frames, words, settings)
    measured = {s.title: {"of": s.of, **gaps.gaps(s.space, s.contents, settings)} for s in found}
    maps = gaps.flattened({s.title: s.space for s in found}, settings.seed)
    content = {"spaces": measured, "change": gaps.changes(found), "scores": scores}
    models = {name: n.revision for name, n in networks.items()} | {encoder: words.revision}
    of = Subject(models, None, dict(frames), settings, place)  # type: ignore[arg-type]
    return of.finish(
        "domains", content, started, lambda path: plots.scatters(maps, path), _gap_table(content)
    )


def _gap_table(content: Mapping[str, Any]) -> Shown:
    rows: list[Sequence[str]] = []
    for name, row in content["spaces"].items():
        chance = f"all (chance {row['classifier']['chance']:.2f})"
        rows.append((name, chance, cell(row["classifier"]), "", "", ""))
        for pair in row["pairs"]:
            numbers = (cell(pair["classifier"]), cell(pair["mmd2"], 4), f"{pair['mmd2']['p']:.3f}")
            rows.append((name, f"{pair['a']} | {pair['b']}", *numbers, cell(pair["cka"])))
    for row in content["change"]:
        name = f"{row['space']}, {row['from']} to {row['to']}"
        rows += [(name, f"{ref}, same images", "", "", "", f"{v:.3f}") for ref, v in row["cka"].items()]
    for name, row in content["scores"].items():
        each = {**row["each"], "mean": row["mean"], "all pooled": row["pooled"]}
        rows += [(f"SRCC, {name}", ref, f"{value:.3f}", "", "", "") for ref, value in each.items()]
    return ("space", "data sets", "classifier", "MMD²", "p", "CKA"), rows


def ablations(
    configs: Mapping[str, Path],
    seeds: Sequence[int],
    base: str,
    options: Sequence[str],
    settings: Settings,
    place: Place,
    started: Clock,
) -> Done:
    """Of runs that are trained, :func:`rali_zoo.analysis.ablations.table`, written and drawn.

    Args:
        configs: config by name, the complete method first.
        seeds: of the runs.
        base: config of the complete method.
        options: further words of every ``fit``.
        settings: of which resamples, root and seed count.
        place: folder of the runs and of the results file, and of the plot.
        started: when the command was.
    """
    from rali_zoo.analysis import ablations as parts

    found, output = dict(configs), place.output
    tested = parts.read(list(found), seeds, output, settings.root)
    results = parts.table(list(found), seeds, tested, settings.resamples, settings.seed)
    how = {"options": list(options), "resamples": settings.resamples, "seed": settings.seed}
    models = {name: str(p) for name, p in found.items()}
    path = write_result(
        output, "ablations", how, {}, models, {**results, "seeds": list(seeds)}, since(started)
    )
    panels = {"mean over test sets": {n: row["srcc"] for n, row in results["mean"].items()}} | {
        ref: {n: row["srcc"] for n, row in test["variants"].items()} for ref, test in results["tests"].items()
    }
    plot = plots.dots(panels, SCORE_LABEL, place.plot("ablations"))
    rows = []
    for name, row in results["mean"].items():
        minus = row.get("minus")
        gap = ("", "") if minus is None else (cell(minus, sign=True), f"{minus['p_holm']:.3f}")
        tests = [cell(test["variants"][name]["srcc"]) for test in results["tests"].values()]
        rows.append((name, cell(row["srcc"]), *gap, *tests))
    heading = ("variant", "mean SRCC", f"minus {base}", "p (Holm)", *results["tests"])
    return Done(path, plot, (heading, rows))


# ---- what is shown ----


def cell(v: Mapping[str, float], digits: int = 3, sign: bool = False) -> str:
    """``value [low, high]``; a dash where nothing is defined."""
    form = f"{'+' if sign else ''}.{digits}f"
    numbers = [v[k] for k in ("value", "low", "high")]
    if numbers[0] is None or numbers[0] != numbers[0]:
        return "–"
    value, low, high = (format(x, form) for x in numbers)
    return f"{value} [{low}, {high}]"


def _score_table(results: Mapping[str, Texts]) -> Shown:
    rows: list[Sequence[str]] = []
    for ref, row in results.items():
        for name, s in row["scores"].items():
            count = f"{s['n']}" + (f" ({s['failed']} failed)" if s["failed"] else "")
            rows.append((ref, name, count, cell(s["srcc"]), cell(s["plcc"])))
        for name, d in row["differences"].items():
            srcc = f"{cell(d['srcc'], sign=True)}, p = {d['srcc']['p']:.3f}"
            rows.append((ref, f"Δ {name}", str(d["n"]), srcc, cell(d["plcc"], sign=True)))
    return ("data set", "scored from", "n", "SRCC", "PLCC"), rows


def _dots(results: Mapping[str, Texts], path: Path) -> Path:
    panels = {ref: {n: s["srcc"] for n, s in row["scores"].items()} for ref, row in results.items()}
    return plots.dots(panels, SCORE_LABEL, path)
