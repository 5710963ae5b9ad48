"""Intervals and tests on data whose truth is known; a small run by default, the full one with ``-m slow``."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from rali_zoo.bench.comparison import compare
from rali_zoo.bench.rows import draw
from rali_zoo.metrics import bootstrap_ci, meng_rosenthal_rubin, paired_bootstrap, plcc, srcc
from rali_zoo.metrics.bootstrap import Resamples, percentile_interval


@dataclass(frozen=True)
class World:
    """MOS and scorers are normal; a share ``icc`` of every variance belongs to the content."""

    n: int
    rho: float  # correlation of each scorer with MOS
    shared: float = 0.0  # share of the error variance that two scorers have in common
    contents: int = 0  # 0 = every image its own
    icc: float = 0.0
    layout: tuple[int, ...] = ()  # images of each content; () = as many of each

    @property
    def member(self) -> np.ndarray:
        """Content of each image."""
        if self.layout:
            return np.repeat(np.arange(len(self.layout)), self.layout)
        return np.arange(self.n) % self.contents

    @property
    def srcc(self) -> float:
        """Spearman's correlation of a bivariate normal distribution."""
        return 6 / math.pi * math.asin(self.rho / 2)

    @property
    def content(self) -> list[str] | None:
        return [f"c{k}" for k in self.member] if self.contents else None

    def draw(self, rng):
        """MOS and the scores of two equally good scorers, each (n,)."""

        def variable():
            if not self.contents:
                return rng.normal(size=self.n)
            common = rng.normal(size=self.contents)[self.member]
            return math.sqrt(self.icc) * common + math.sqrt(1 - self.icc) * rng.normal(size=self.n)

        mos, common = variable(), variable()
        error = [math.sqrt(self.shared) * common + math.sqrt(1 - self.shared) * variable() for _ in "ab"]
        return mos, *(self.rho * mos + math.sqrt(1 - self.rho**2) * e for e in error)


INDEPENDENT = World(n=200, rho=0.8, shared=0.5)
CLUSTERED = World(n=400, rho=0.8, shared=0.5, contents=40, icc=0.3)


def board(balance):
    """400 rows of a set like ``synthetic:lab``: 63 contents, of which three have two fifths of the images."""
    sizes = [340, 330, 320] + [24] * 60
    frame = pd.DataFrame({"content": np.repeat([f"c{k:02d}" for k in range(63)], sizes)})
    rows = draw(frame.assign(id=[f"i{k}" for k in range(len(frame))]), 400, seed=0, balance=balance)
    counts = rows["content"].value_counts()
    return World(n=400, rho=0.8, shared=0.5, contents=len(counts), icc=0.3, layout=tuple(counts))


def test_no_three_contents_are_two_fifths_of_a_balanced_board():
    plain, balanced = board(False).layout, board(True).layout
    assert sum(sorted(plain)[-3:]) > 0.35 * 400 and len(balanced) == 63
    assert set(balanced) <= {6, 7} and sum(balanced) == 400


def coverage(world, trials, resamples):
    """Share of the intervals of SRCC, made as those of a benchmark cell, that hold the true value."""
    rng, held = np.random.default_rng(0), 0
    for trial in range(trials):
        mos, x, _ = world.draw(rng)
        drawn = Resamples(world.n, resamples, trial, world.content)
        low, high = percentile_interval(drawn.srcc([x], mos)[0], units=drawn.units)
        held += low <= world.srcc <= high
    return held / trials


def false_alarms(world, trials, resamples):
    """How often two equally good scorers are told apart, by each test."""
    rng, found = np.random.default_rng(1), dict.fromkeys(("mrr", "bootstrap", "both", "interval"), 0)
    for trial in range(trials):
        mos, a, b = world.draw(rng)
        pair = compare(mos, {"a": a, "b": b}, world.content, trial, resamples=resamples).pairs[0]
        found["mrr"] += pair.p_mrr < 0.05
        found["bootstrap"] += pair.p_bootstrap < 0.05
        found["both"] += pair.p_holm < 0.05
        found["interval"] += not pair.low <= 0 <= pair.high
    return {name: count / trials for name, count in found.items()}


@pytest.mark.parametrize("world", [INDEPENDENT, CLUSTERED], ids=["images", "contents"])
def test_a_few_intervals_hold_the_truth(world):
    assert coverage(world, trials=60, resamples=200) >= 0.85  # 0.95 less three standard errors


def test_seldom_a_difference_without_one():
    found = false_alarms(INDEPENDENT, trials=100, resamples=150)
    assert max(found.values()) <= 0.12  # 0.05 and three standard errors
    assert false_alarms(board(True), trials=60, resamples=150)["both"] <= 0.14
    clustered = false_alarms(CLUSTERED, trials=60, resamples=150)
    assert clustered["both"] <= 0.14 and clustered["mrr"] > clustered["both"]  # it counts copies as evidence


def test_pearson_and_the_counting_bootstrap():
    rng, found = np.random.default_rng(2), np.zeros(2)
    for trial in range(60):
        mos, a, b = World(n=80, rho=0.7).draw(rng)
        r = plcc(a, mos), plcc(b, mos), plcc(a, b)
        found[0] += meng_rosenthal_rubin(*r, 80, kind="pearson").p_value < 0.05
        found[1] += paired_bootstrap(a, b, mos, plcc, n=150, seed=trial).p_value < 0.05
    assert (found <= 9).all()  # 3 expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        World(n=100, rho=0.7),
        INDEPENDENT,
        World(n=800, rho=0.9),
        World(n=500, rho=0.8, contents=25, icc=0.3),
        CLUSTERED,
        World(n=800, rho=0.9, contents=80, icc=0.5),
    ],
    ids=str,
)
def test_coverage_lies_between_93_and_97_percent(world):
    found = coverage(world, trials=1000, resamples=400)
    print(f"{world}: coverage {found:.3f}")
    assert 0.93 <= found <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [World(n=100, rho=0.7), INDEPENDENT, World(n=300, rho=0.9, shared=0.8), CLUSTERED, board(True)],
    ids=str,
)
def test_error_of_the_first_kind_is_near_5_percent(world):
    found = false_alarms(world, trials=1000, resamples=400)
    print(f"{world}: {found}")
    names = ("bootstrap", "interval") if world.contents else ("mrr", "bootstrap", "interval")
    assert all(0.03 <= found[name] <= 0.07 for name in names)
    assert 0.02 <= found["both"] <= 0.06  # the larger of two p-values errs on the safe side


@pytest.mark.slow
def test_the_plain_percentile_interval():
    """What ``bootstrap_ci`` gives, without the correction for few contents."""
    rng, world, held = np.random.default_rng(3), INDEPENDENT, 0
    for trial in range(1000):
        mos, x, _ = world.draw(rng)
        found = bootstrap_ci(x, mos, srcc, n=400, seed=trial)
        held += found.low <= world.srcc <= found.high
    assert 0.93 <= held / 1000 <= 0.97
