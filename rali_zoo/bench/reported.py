"""Numbers that authors report of their models: read from a yaml file, never mixed with measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rali_zoo.errors import ScoreTableError, near_miss

_TABLE_KEYS = ("id", "title", "source", "url", "read_from", "protocol", "metrics", "datasets", "rows")
_ROW_KEYS = ("model", "note", "values")


@dataclass(frozen=True)
class ReportedRow:
    """One model's numbers as its authors give them.

    Attributes:
        model: the name they use.
        values: data set to one number a metric of the table, in [-1, 1]; ``None`` where one is not given.
        note: whose number it is, or what to know of it.
    """

    model: str
    values: Mapping[str, tuple[float | None, ...]]
    note: str = ""


@dataclass(frozen=True)
class ReportedTable:
    """A table of a publication.

    Attributes:
        id: a word to refer to it.
        title: what the rows have in common.
        source: the publication and its table.
        metrics: names of the numbers in each value.
        datasets: the columns.
        rows: the models.
        url: of the publication.
        read_from: where the numbers were read if not in the publication itself.
        protocol: how they were measured, as far as it is known.
    """

    id: str
    title: str
    source: str
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    rows: tuple[ReportedRow, ...]
    url: str = ""
    read_from: str = ""
    protocol: str = ""

    def average(self, row: ReportedRow) -> tuple[float | None, ...]:
        """Unweighted mean over the table's data sets, a number a metric; ``None`` where one is missing."""
        means = []
        for i in range(len(self.metrics)):
            found = [row.values[d][i] for d in self.datasets if d in row.values]
            known = [v for v in found if v is not None]
            means.append(sum(known) / len(known) if len(known) == len(self.datasets) else None)
        return tuple(means)

    def best(self, dataset: str) -> tuple[float | None, ...]:
        """The highest number of a column, a number a metric."""
        given = [row.values[dataset] for row in self.rows if dataset in row.values]
        columns = ([v[i] for v in given] for i in range(len(self.metrics)))
        return tuple(max((v for v in column if v is not None), default=None) for column in columns)


def read_reported(path: Path) -> tuple[ReportedTable, ...]:
    """The tables of a file.

    Args:
        path: a yaml file with ``tables``, a list; see ``benchmarks/reported.yaml``.

    Raises:
        ScoreTableError: a file, table or row that cannot be read; the message names it.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScoreTableError(f"{path}: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("tables"), list):
        raise ScoreTableError(f"{path}: expected 'tables:', a list of tables")
    tables = tuple(_table(raw, f"{path}, table {i + 1}") for i, raw in enumerate(content["tables"]))
    ids = [t.id for t in tables]
    if len(set(ids)) != len(ids):
        raise ScoreTableError(f"{path}: two tables have the same id; ids: {', '.join(ids)}")
    return tables


def _table(raw: object, place: str) -> ReportedTable:
    if not isinstance(raw, dict):
        raise ScoreTableError(f"{place}: expected keys and values, got {raw!r}")
    _known_keys(raw, _TABLE_KEYS, place)
    for key in ("id", "title", "source", "metrics", "datasets", "rows"):
        if not raw.get(key):
            raise ScoreTableError(f"{place}: {key!r} is missing")
    metrics, datasets = tuple(map(str, raw["metrics"])), tuple(map(str, raw["datasets"]))
    place = f"{place} ({raw['id']})"
    rows = tuple(_row(r, metrics, datasets, f"{place}, row {i + 1}") for i, r in enumerate(raw["rows"]))
    texts = {
        key: str(raw.get(key, "")).strip() for key in ("title", "source", "url", "read_from", "protocol")
    }
    if texts["url"] and not texts["url"].startswith(("https://", "http://")):
        raise ScoreTableError(f"{place}: url {texts['url']!r} does not begin with https://")
    return ReportedTable(id=str(raw["id"]), metrics=metrics, datasets=datasets, rows=rows, **texts)


def _row(raw: object, metrics: tuple[str, ...], datasets: tuple[str, ...], place: str) -> ReportedRow:
    if not isinstance(raw, dict) or not raw.get("model") or not isinstance(raw.get("values"), dict):
        raise ScoreTableError(f"{place}: expected 'model' and 'values', got {raw!r}")
    _known_keys(raw, _ROW_KEYS, place)
    values: dict[str, tuple[float | None, ...]] = {}
    for dataset, numbers in raw["values"].items():
        if dataset not in datasets:
            raise ScoreTableError(f"{place}: no column {dataset!r}. {near_miss(str(dataset), datasets)}")
        if not isinstance(numbers, list) or len(numbers) != len(metrics):
            raise ScoreTableError(f"{place}: {dataset} needs {len(metrics)} numbers ({', '.join(metrics)})")
        for number in numbers:
            if number is not None and not (_is_number(number) and -1 <= number <= 1):
                raise ScoreTableError(f"{place}: {dataset}: {number!r} is no correlation in [-1, 1]")
        values[dataset] = tuple(None if v is None else float(v) for v in numbers)
    return ReportedRow(str(raw["model"]), values, str(raw.get("note", "")).strip())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _known_keys(raw: Mapping[object, object], known: tuple[str, ...], place: str) -> None:
    for key in raw:
        if key not in known:
            raise ScoreTableError(f"{place}: unknown key {key!r}. {near_miss(str(key), known)}")
