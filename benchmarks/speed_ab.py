"""Two ways to do the same thing, timed in turn in one run: the ratio of their times and its spread.

Times of different runs on a machine that others use too cannot be compared; those of alternate rounds can.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rali_zoo.paths import atomic_path

Clock = Literal["wall", "cpu"]
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Row:
    """One line of the results.

    Attributes:
        name: what was compared.
        ratio: median over the rounds; how many times faster the candidate is than the baseline, unless the
            name says that it is something else.
        low: smallest of a round.
        high: largest of a round.
        goal: ``">= 0.97"`` or ``"<= 3"``, for ``ratio``; empty where there is none.
        note: what else was measured, with units.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; ``None`` without one."""
        if not self.goal:
            return None
        sign, value = self.goal.split()
        return self.ratio >= float(value) if sign == ">=" else self.ratio <= float(value)


def ab(
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    rounds: int = 7,
    repeat: int = 1,
    clock: Clock = "wall",
) -> tuple[list[float], float, float]:
    """Time two functions in turn, each first in every other round, after one call of each for warming up.

    Args:
        baseline: what the candidate is compared with.
        candidate: the other.
        rounds: at least 5.
        repeat: calls of each in a round.
        clock: ``cpu`` counts the time of all threads of this process, whatever else the machine does.

    Returns:
        Baseline's time over candidate's for each round, and the median time of a call of each in seconds.
    """
    if rounds < 5:
        raise ValueError("fewer than 5 rounds say nothing about the spread")
    baseline(), candidate()
    times: dict[int, list[float]] = {0: [], 1: []}
    for number in range(rounds):
        for which in ((0, 1), (1, 0))[number % 2]:
            function = (baseline, candidate)[which]
            begun = _CLOCKS[clock]()
            for _ in range(repeat):
                function()
            times[which].append((_CLOCKS[clock]() - begun) / repeat)
    ratios = [a / b for a, b in zip(times[0], times[1], strict=True)]
    return ratios, statistics.median(times[0]), statistics.median(times[1])


def compare(
    name: str,
    baseline: Callable[[], object],
    candidate: Callable[[], object],
    goal: str = "",
    note: str = "",
    rounds: int = 7,
    repeat: int = 1,
    clock: Clock = "wall",
) -> Row:
    """:func:`ab` as a row, whose note also has both times."""
    ratios, slow, fast = ab(baseline, candidate, rounds, repeat, clock)
    said = f"{slow * 1e3:.1f} ms against {fast * 1e3:.1f} ms of {clock} time, {rounds} rounds"
    return from_values(name, ratios, goal, f"{said}; {note}" if note else said)


def from_values(name: str, values: Sequence[float], goal: str = "", note: str = "") -> Row:
    """A row of one value a round."""
    return Row(name, statistics.median(values), min(values), max(values), goal, note)


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    for row in rows:
        met = {True: "met", False: "NOT MET", None: ""}[row.met]
        print(
            f"{row.name:52} {row.ratio:7.3f} [{row.low:.3f}, {row.high:.3f}]  {row.goal:8} {met:7} {row.note}"
        )


def write(rows: Sequence[Row], path: Path, about: dict[str, Any]) -> None:
    """Write rows and where they come from as json, whole or not at all."""
    content = {**about, "rows": [{**asdict(row), "met": row.met} for row in rows]}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
