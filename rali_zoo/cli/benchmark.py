"""``rali-zoo benchmark``: a suite of models and data sets to results files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rali_zoo.bench.results import Cell
    from rali_zoo.bench.run import Done


def command(
    suite: Path,
    /,
    output: Path = Path("results"),
    root: str = "data",
    engine: Literal["local", "ray"] = "local",
    devices: list[str] | None = None,
) -> None:
    """Run a suite: every model on every data set, a results file each; what is there already is kept.

    Args:
        suite: yaml file with models and data sets, such as benchmarks/suites/quick.yaml.
        output: folder of the results files; those of the repository are in benchmarks/results, and are
            written only when that is given.
        root: folder that holds the data sets' folders.
        engine: local runs in this process, or in one process a device; ray runs every cell as a task.
        devices: where to compute, e.g. '[cuda:0,cuda:1]'; the CPU by default.
    """
    from rali_zoo.bench.suite import read_suite

    plan = read_suite(suite)  # names are checked before torch is imported
    from rali_zoo.bench.engines import run_suite

    done = run_suite(plan, Path(output), root, engine, devices or ["cpu"], _log)
    _show(done)
    fresh = sum(d.fresh for d in done)
    print(f"{len(done)} cells ({fresh} made now); tables of them: rali-zoo leaderboard --results {output}")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(done: Sequence[Done]) -> None:
    """A table a data set, a row a cell, nothing left out."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console, notes = Console(), []
    for name in dict.fromkeys(one.cell.dataset.name for one in done):
        cells = [one.cell for one in done if one.cell.dataset.name == name]
        label = " [yellow](synthetic labels)[/yellow]" if cells[0].dataset.synthetic else ""
        table = Table(title=escape(name) + label, title_justify="left")
        table.add_column(
            "model", overflow="ellipsis", no_wrap=True
        )  # a reference on four lines cannot be read
        for heading in ("n", "failed", "SRCC", "95 % interval", "ms, p50"):
            table.add_column(heading, justify="right", no_wrap=True)
        for cell in cells:
            model = escape(cell.model.name)
            table.add_row(model, str(cell.n), str(cell.failed), *_numbers(cell))
            notes += [f"{cell.model.name} on {name}: {note}" for note in _notes(cell)]
        console.print(table)
    for note in notes:
        print(note)


def _numbers(cell: Cell) -> tuple[str, str, str]:
    """SRCC, its interval and the latency, as far as there are any."""
    srcc = cell.estimate("srcc")
    value, low, high = srcc.value, srcc.low, srcc.high
    total = cell.cost.latency.total if cell.cost else None
    return (
        "-" if value is None else f"{value:.3f}",
        "-" if low is None or high is None else f"{low:.3f} to {high:.3f}",
        "-" if total is None else f"{1000 * total.p50:.1f}",
    )


def _notes(cell: Cell) -> list[str]:
    notes = [] if cell.status == "ok" else [f"{cell.status}: {cell.reason}"]
    if cell.leakage.flag in ("same-dataset", "test-rows"):
        notes.append(f"{cell.leakage.flag}: {cell.leakage.why}")
    return notes
