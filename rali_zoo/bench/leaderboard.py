"""The board: a pure function of the committed results files. Nothing is scored or measured here.

What is not comparable is not averaged: data sets with human scores of quality, such with scores of aesthetics,
degradations whose order alone is known, and data sets with synthetic labels have averages of their own, cells whose
test rows were trained on are shown but not ranked, and a model that lacks a data set stands below those that have
them all.
"""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from rali_zoo.bench.check import read_cells
from rali_zoo.bench.comparison import Pair
from rali_zoo.bench.reported import ReportedTable
from rali_zoo.bench.results import Cell, Dataset, Model, Targets, read_targets
from rali_zoo.errors import ConfigError
from rali_zoo.paths import cache_dir

Labels = Literal["human", "aesthetics", "order", "synthetic"]
#: What the scores of a data set are made of, in the order of the columns.
LABELS: dict[Labels, str] = {
    "human": "human scores",
    "aesthetics": "aesthetics",
    "order": "degradation response",
    "synthetic": "synthetic labels",
}
ALPHA = 0.05
#: Models of a data set, its best, that are compared in pairs: their number grows with the square of the models'.
COMPARED = 100


@dataclass(frozen=True)
class Column:
    """A data set of the board.

    Attributes:
        dataset: which.
        labels: ``human``, ``aesthetics`` (human scores of how well images are liked), ``order`` (degradations: no
            scores, an order) or ``synthetic``.
        targets: its ids, MOS and contents; ``None`` where they may not be published.
        pairs: comparisons of every two of the best :data:`COMPARED` models that count here.
        best: keys of the models that no other is significantly better than, where models that were trained on
            the same data set beat nobody: the measure of the field is who had no such advantage.
        letters: key to the letters of its groups; models that share one were not told apart.
        note: why models are not compared; "" if they are.
    """

    dataset: Dataset
    labels: Labels
    targets: Targets | None = None
    pairs: tuple[Pair, ...] = ()
    best: frozenset[str] = frozenset()
    letters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""

    @cached_property
    def key(self) -> str:
        """Of its data set: the name of its files without suffix."""
        return self.dataset.key


@dataclass(frozen=True)
class Average:
    """Failure-aware SRCC, or share of ordered pairs, over the data sets of one kind of labels.

    Attributes:
        mean: unweighted; ``None`` where a data set is missing, since a mean over others is another number.
        weighted: by the number of images; ``None`` likewise.
        pooled: SRCC over the images of all data sets together, of scores in MOS units; else ``None``.
        sets: data sets that count for this model.
        of: data sets that there are.
        order: mean over the data sets that count; only for the order of models that lack the same number.
    """

    mean: float | None
    weighted: float | None
    pooled: float | None
    sets: int
    of: int
    order: float


@dataclass(frozen=True)
class Row:
    """A model of the board.

    Attributes:
        model: who.
        label: its name, with the revision where two rows have the same name.
        cells: by the key of the data set; absent = not run.
        averages: by kind of labels.
    """

    model: Model
    label: str
    cells: Mapping[str, Cell]
    averages: Mapping[Labels, Average]


@dataclass(frozen=True)
class Board:
    """Columns, rows (best first), and what others report.

    Attributes:
        columns: data sets, those with human scores first.
        rows: models that we measured.
        reported: tables of publications, apart from the rows.
        reported_cells: results files that say of themselves that they are reported, not measured.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reported: tuple[ReportedTable, ...] = ()
    reported_cells: tuple[Cell, ...] = field(default=())

    @property
    def labels(self) -> list[Labels]:
        """Kinds of labels that the board has, in the order of the columns."""
        return [kind for kind in LABELS if any(c.labels == kind for c in self.columns)]


@contextmanager
def all_kept() -> Iterator[None]:
    """Not to look for garbage among the objects of thousands of files, none of which is."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@all_kept()
def leaderboard(results: Path, reported: Sequence[ReportedTable] = (), seed: int = 0) -> Board:
    """The board of a folder of results.

    Args:
        results: folder of ``<model>/<revision>/<data set>.json`` and ``datasets/<data set>.json``.
        reported: tables of publications to carry along.
        seed: of the paired bootstrap.

    Raises:
        ConfigError: no results there.
        ScoreTableError: files that are not right, as ``rali-zoo check-results`` finds, or that do not fit
            together.
    """
    cells = read_cells(results)
    if not cells:
        raise ConfigError(f"no results below {results}; make some: rali-zoo benchmark SUITE.yaml")
    measured = [cell for cell in cells if cell.model.kind != "reported"]
    by_dataset: dict[str, list[Cell]] = {}
    for cell in measured:
        by_dataset.setdefault(cell.dataset.key, []).append(cell)
    columns = [_column(here, read_targets(results, here), seed) for _, here in sorted(by_dataset.items())]
    order = list(LABELS)
    columns.sort(key=lambda c: (order.index(c.labels), c.dataset.ref, c.key))
    return Board(
        columns=tuple(columns),
        rows=tuple(_rows(measured, columns)),
        reported=tuple(reported),
        reported_cells=tuple(cell for cell in cells if cell.model.kind == "reported"),
    )


def _rows(cells: Sequence[Cell], columns: Sequence[Column]) -> list[Row]:
    by_model: dict[str, list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(cell.model.key, []).append(cell)
    names = Counter(own[0].model.name for own in by_model.values())
    rows = []
    for own in by_model.values():
        model, by_column = own[0].model, {cell.dataset.key: cell for cell in own}
        label = model.name if names[model.name] == 1 else f"{model.name} @{model.revision[:7]}"
        averages = {kind: _average(by_column, columns, kind) for kind in LABELS}
        rows.append(Row(model, label, by_column, averages))
    return sorted(rows, key=_place)


def _average(cells: Mapping[str, Cell], columns: Sequence[Column], kind: Labels) -> Average:
    from rali_zoo import metrics

    here = [c for c in columns if c.labels == kind]
    values = {c.key: _counting(cells.get(c.key)) for c in here}
    known = [v for v in values.values() if v is not None]
    if not known:
        return Average(None, None, None, 0, len(here), 0.0)
    found = metrics.average(values, {c.key: c.dataset.n for c in here})
    order = sum(known) / len(known)
    pooled = None if found.missing else _pooled([(cells[c.key], c) for c in here])
    return Average(found.unweighted, found.weighted, pooled, len(known), len(here), order)


def _counting(cell: Cell | None) -> float | None:
    return cell.ranking if cell is not None and cell.counts else None


def _pooled(cells: Sequence[tuple[Cell, Column]]) -> float | None:
    """SRCC over all images at once; only of scores in MOS units that are published with their MOS."""
    from rali_zoo import metrics

    if len(cells) < 2 or cells[0][0].model.native_scale or cells[0][1].labels == "order":
        return None
    sets = [(numbers(cell), c.targets.mos) for cell, c in cells if c.targets is not None and cell.scores]
    return metrics.pooled_srcc(sets).srcc_failures_worst if len(sets) == len(cells) else None


def _place(row: Row) -> tuple[float | str, ...]:
    """Sort key: most data sets first, then the highest mean; human scores before synthetic labels."""
    place: list[float] = []
    for kind in LABELS:
        average = row.averages[kind]
        place += [-average.sets, -average.order]
    return (*place, row.label, row.model.key)


def _column(cells: Sequence[Cell], targets: Targets | None, seed: int) -> Column:
    dataset = cells[0].dataset
    labels: Labels = "order" if dataset.ordered else "synthetic" if dataset.synthetic else "human"
    if labels == "human" and dataset.question == "aesthetics":
        labels = "aesthetics"
    if labels == "order":
        return Column(
            dataset, labels, targets, note="shares of ordered pairs are shown with intervals, not tested"
        )
    ranked = [cell for cell in cells if cell.counts]
    if len(ranked) < 2:
        return Column(dataset, labels, targets, note="fewer than two models to compare")
    hidden = [cell.model.name for cell in ranked if cell.scores is None]
    if targets is None or hidden:
        what = "the scores of " + ", ".join(hidden) if hidden else "its MOS"
        return Column(dataset, labels, targets, note=f"not compared: {what} may not be published")
    return _compared(Column(dataset, labels, targets), targets, ranked, seed)


def _compared(column: Column, targets: Targets, cells: Sequence[Cell], seed: int) -> Column:
    """The column with the pairs of its best models, on what it is sorted by: failed images in the worst place."""
    from rali_zoo.bench.comparison import compare

    cells = sorted(cells, key=lambda cell: -(cell.ranking or 0.0))[:COMPARED]
    scores = {cell.model.key: numbers(cell) for cell in cells}
    try:
        memory = cache_dir("compared")
        found = compare(targets.mos, scores, targets.content, seed, failures="worst", memory=memory)
    except ValueError as error:  # such as images of a single content
        return replace(column, note=f"not compared: {error}")
    fair = {cell.model.key for cell in cells if cell.leakage.flag != "same-dataset"}
    beaten = set()
    for pair in found.pairs:
        better, worse = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
        if pair.p_holm < ALPHA and better in fair:
            beaten.add(worse)
    return replace(column, pairs=found.pairs, best=frozenset(scores) - beaten, letters=found.letters)


def numbers(cell: Cell) -> list[float]:
    """A cell's scores with NaN for images that failed."""
    return [math.nan if v is None else v for v in cell.scores or ()]
