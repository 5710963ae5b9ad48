"""Numbers that authors report of their models: read from a yaml file, never mixed with measured ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from rali_zoo.bench.schema import Correlation, Name, Part, checked
from rali_zoo.errors import ScoreTableError, near_miss
from rali_zoo.settings import read_yaml

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
#: One number a metric of the table; ``None`` where one is not given.
Values = list[Correlation | None]


class ReportedRow(Part):
    """One model's numbers as its authors give them.

    Attributes:
        model: the name they use.
        values: data set to one number a metric of the table, in [-1, 1].
        note: whose number it is, or what to know of it.
    """

    model: Name
    values: dict[str, Values]
    note: Text = ""


class ReportedTable(Part):
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

    id: Name
    title: Annotated[Text, Field(min_length=1)]
    source: Annotated[Text, Field(min_length=1)]
    metrics: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[list[ReportedRow], Field(min_length=1)]
    url: Annotated[Text, Field(pattern=r"^(https?://.*)?$")] = ""
    read_from: Text = ""
    protocol: Text = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for row in self.rows:
            for dataset, numbers in row.values.items():
                if dataset not in self.datasets:
                    miss = near_miss(dataset, self.datasets)
                    raise ValueError(f"{self.id}, {row.model}: no column {dataset!r}. {miss}")
                if len(numbers) != len(self.metrics):
                    needed = f"{len(self.metrics)} numbers ({', '.join(self.metrics)})"
                    raise ValueError(f"{self.id}, {row.model}: {dataset} needs {needed}")
        return self

    def average(self, row: ReportedRow) -> Values:
        """Unweighted mean over the table's data sets, a number a metric; ``None`` where one is missing."""
        means: Values = []
        for i in range(len(self.metrics)):
            known = _known(row.values[d][i] for d in self.datasets if d in row.values)
            means.append(sum(known) / len(known) if len(known) == len(self.datasets) else None)
        return means

    def best(self, dataset: str) -> Values:
        """The highest number of a column, a number a metric."""
        given = [row.values[dataset] for row in self.rows if dataset in row.values]
        return [max(_known(v[i] for v in given), default=None) for i in range(len(self.metrics))]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


class _File(Part):
    tables: list[ReportedTable]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        ids = [table.id for table in self.tables]
        if len(set(ids)) != len(ids):
            raise ValueError(f"two tables have the same id; ids: {', '.join(ids)}")
        return self


def read_reported(path: Path) -> list[ReportedTable]:
    """The tables of a file.

    Args:
        path: a yaml file with ``tables``, a list; see ``benchmarks/reported.yaml``.

    Raises:
        ScoreTableError: a file, table or row that cannot be read; the message names it.
    """
    return checked(_File, read_yaml(path, ScoreTableError), str(path), ScoreTableError).tables
