"""Two ways to do the same thing, timed in turn in one run: the ratio of their times and its spread.

Times of different runs on a machine that others use too cannot be compared; those of alternate rounds can.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Clock = Literal["wall", "cpu"]
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
#: Rounds below which nothing is said about spread.
LEAST_ROUNDS = 5


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
        limit: why the goal may be out of reach here, with the number that was measured to show it; said
            only where it is not met.
        values: numbers of the note that are computed with; seconds, bytes, or of the unit in their name.
    """

    name: str
    ratio: float
    low: float
    high: float
    goal: str = ""
    note: str = ""
    limit: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; ``None`` without one."""
        if not self.goal:
            return None
        sign, value = self.goal.split()
        return self.ratio >= float(value) if sign == ">=" else self.ratio <= float(value)

    @property
    def reason(self) -> str:
        """Why the goal is not met; empty where it is, or where there is none."""
        if self.met is not False:
            return ""
        return self.limit or "no physical reason is known"


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
        rounds: at least :data:`LEAST_ROUNDS`.
        repeat: calls of each in a round.
        clock: ``cpu`` counts the time of all threads of this process, whatever else the machine does.

    Returns:
        Baseline's time over candidate's for each round, and the median time of a call of each in seconds.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"fewer than {LEAST_ROUNDS} rounds say nothing about the spread")
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
    limit: Callable[[float, float], str] | None = None,
    values: Mapping[str, float] | None = None,
) -> Row:
    """:func:`ab` as a row, whose note also has both times.

    Args:
        limit: of the seconds of baseline and candidate; see :class:`Row`.
        values: see :class:`Row`; ``baseline_s`` and ``candidate_s`` are added.
    """
    ratios, slow, fast = ab(baseline, candidate, rounds, repeat, clock)
    said = f"{slow * 1e3:.1f} ms against {fast * 1e3:.1f} ms of {clock} time, {rounds} rounds"
    numbers = {**(values or {}), "baseline_s": slow, "candidate_s": fast}
    why = "" if limit is None else limit(slow, fast)
    return from_values(name, ratios, goal, f"{said}; {note}" if note else said, why, numbers)


def from_values(
    name: str,
    found: Sequence[float],
    goal: str = "",
    note: str = "",
    limit: str = "",
    values: Mapping[str, float] | None = None,
) -> Row:
    """A row of one value a round."""
    return Row(name, statistics.median(found), min(found), max(found), goal, note, limit, values or {})


def seconds(function: Callable[[], object], rounds: int = 7, clock: Clock = "cpu") -> float:
    """Median time of a call, after one for warming up."""
    function()
    times = []
    for _ in range(rounds):
        begun = _CLOCKS[clock]()
        function()
        times.append(_CLOCKS[clock]() - begun)
    return statistics.median(times)
