"""The analyses as static images (svg or png) with matplotlib, without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rali_zoo.errors import MissingExtraError
from rali_zoo.paths import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from rali_zoo.analysis.attention import Attention, Compression
    from rali_zoo.analysis.routing import Route

# Told apart by readers with any colour vision (Okabe, Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def require() -> None:
    """Say before anything is computed that there is nothing to draw with; raises MissingExtraError."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "analysis") from error


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path, dpi: int = 110) -> Path:
    import matplotlib

    # the same numbers give the same file, byte for byte
    with matplotlib.rc_context({"svg.hashsalt": "rali_zoo", "svg.fonttype": "none", "font.size": 9}):
        kind = path.suffix.removeprefix(".") or "svg"
        metadata = {"Date": None} if kind == "svg" else {}
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
    return path


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = _figure(width, height * count)
    return figure, list(np.atleast_1d(figure.subplots(count, 1, sharex=True)))


def dots(panels: Mapping[str, Mapping[str, Mapping[str, float]]], label: str, path: Path) -> Path:
    """Values with intervals, a panel a data set and a row a way of scoring.

    Args:
        panels: title to row to ``value, low, high``.
        label: of the horizontal axis.
        path: svg or png.
    """
    rows = max(map(len, panels.values()))
    figure, axes = _panels(len(panels), 7.0, 0.9 + 0.25 * rows)
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        for row, v in enumerate(values.values()):
            colour = COLOURS[row % len(COLOURS)]
            if v["value"] is None or not np.isfinite(v["value"]):
                axis.text(0, row, "not defined", va="center", fontsize=8, color="#555555")
                continue
            axis.plot(v["value"], row, "o", color=colour)
            axis.hlines(row, v["low"], v["high"], color=colour)
        axis.set_yticks(range(len(values)), list(values))
        axis.set_ylim(len(values) - 0.5, -0.5)
        axis.axvline(0, color="#999999", linewidth=0.8)
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(axis="x", color="#dddddd")
    axes[-1].set_xlabel(label)
    return _save(figure, path)


def stacked(results: Mapping[str, Attention], parts: Sequence[str], path: Path) -> Path:
    """Shares of attention as stacked bars, a panel a data set, a bar a layer.

    Args:
        results: of :func:`rali_zoo.analysis.attention.attention`.
        parts: what the shares are of.
        path: svg or png.
    """
    figure, axes = _panels(len(results), 7.0, 2.1)
    for axis, (ref, row) in zip(axes, results.items(), strict=True):
        bars = [
            *((f"layer {k}" if k != "all" else "all layers", v) for k, v in row["score"].items()),
            ("if even", row["even"]),
            ("while writing", row["text"]["all"]),
        ]
        for place, (_, shares) in enumerate(bars):
            start = 0.0
            for i, part in enumerate(parts):
                value = shares[part]["value"]
                axis.bar(place, value, bottom=start, color=COLOURS[i], label=part if place == 0 else None)
                start += value
        axis.set_xticks(range(len(bars)), [name for name, _ in bars], rotation=30 if len(bars) > 6 else 0)
        axis.set_ylabel("share of attention")
        axis.set_title(f"{ref}, at the score token", loc="left", fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return _save(figure, path)


def histograms(results: Mapping[str, Compression], path: Path) -> Path:
    """Tokens of the reasoning by image beside the number of visual tokens, a panel a data set.

    Args:
        results: of :func:`rali_zoo.analysis.attention.compression`.
        path: svg or png.
    """
    figure, axes = _panels(len(results), 7.0, 1.7)
    for axis, (ref, row) in zip(axes, results.items(), strict=True):
        visual, text, count = np.array(row["tokens"]).T
        bins = np.linspace(0, max(visual.max(), text.max()) + 1, 41).tolist()
        axis.hist(text, bins, weights=count, color=COLOURS[0], label="reasoning")
        axis.hist(visual, bins, weights=count, color=COLOURS[1], alpha=0.7, label="visual")
        axis.set_ylabel("images")
        axis.set_title(ref, loc="left", fontsize=9)
    axes[-1].set_xlabel("tokens")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return _save(figure, path)


def scatters(maps: Mapping[str, Mapping[str, Mapping[str, NDArray[np.float64]]]], path: Path) -> Path:
    """Spaces in two dimensions, a row a space, coloured by data set; points are pixels also in an svg.

    Args:
        maps: of :func:`rali_zoo.analysis.domains.flattened`.
        path: svg or png.
    """
    kinds = list(next(iter(maps.values())))
    figure = _figure(3.3 * len(kinds) + 1.4, 2.6 * len(maps))
    axes = np.atleast_2d(figure.subplots(len(maps), len(kinds)))
    for row, (name, flat) in zip(axes, maps.items(), strict=True):
        for axis, kind in zip(row, kinds, strict=True):
            for i, (ref, points) in enumerate(flat[kind].items()):
                axis.scatter(
                    points[:, 0], points[:, 1], s=9, alpha=0.7, color=COLOURS[i % len(COLOURS)],
                    linewidths=0, label=ref, rasterized=True,
                )  # fmt: skip
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"{name}, {kind}", loc="left", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return _save(figure, path, dpi=60 if path.suffix == ".svg" else 110)  # a svg holds the points as pixels


def curve(result: Route, path: Path, title: str) -> Path:
    """SRCC against the share of images that go to the expensive scorer.

    Args:
        result: of :func:`rali_zoo.analysis.routing.route`.
        path: of the image; its suffix says how: .svg, .png, .pdf.
        title: above it.
    """
    points = result["points"]
    share = [100 * p.share for p in points]
    figure = _figure(6.0, 4.0)
    axes = figure.subplots()
    axes.fill_between(share, [p.low for p in points], [p.high for p in points], alpha=0.2, lw=0)
    axes.plot(share, [p.srcc for p in points], marker="o", label="least certain first")
    axes.plot(share, [p.random for p in points], marker="s", ls="--", label="at random")
    axes.plot(share, [p.oracle for p in points], ls=":", color="grey", label="oracle")
    axes.set_xlabel("share sent to the expensive scorer, %")
    axes.set_ylabel("SRCC (95 % interval)")
    axes.set_title(title, fontsize="medium")
    axes.legend()
    return _save(figure, path)
