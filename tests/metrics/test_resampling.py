"""Shared resamples against SciPy on the rows written out, and against ``bootstrap_ci``."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rali_zoo.metrics import bootstrap_ci, krcc, plcc, rmse, srcc
from rali_zoo.metrics.resampling import (
    draw,
    expanded_interval,
    resampled,
    resampled_krcc,
    resampled_srcc,
    units_of,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 3)), min_size=2, max_size=25
    ).filter(lambda rows: sum(r[2] for r in rows) >= 1)
)
def test_kendall_of_counts_is_kendall_of_repeated_rows(rows):
    x, y, times = np.array(rows, dtype=float).T
    plain = krcc(np.repeat(x, times.astype(int)), np.repeat(y, times.astype(int)))
    assert resampled_krcc(x, y, times[None])[0] == pytest.approx(plain, abs=1e-12, nan_ok=True)


def test_kendall_in_several_blocks():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=2500), 1)
    y = x + rng.normal(size=2500)
    counts = next(draw(2500, 3, 0))
    for found, row in zip(resampled_krcc(x, y, counts), counts.astype(int), strict=True):
        wanted = stats.kendalltau(np.repeat(x, row), np.repeat(y, row)).statistic
        assert found == pytest.approx(wanted, abs=1e-12)


def test_the_resamples_are_those_of_bootstrap_ci():
    rng = np.random.default_rng(1)
    mos = rng.normal(size=90)
    x = mos + rng.normal(size=90)
    content = [f"c{k % 15}" for k in range(90)]
    wanted = {"s": ("srcc", x), "p": ("plcc", x), "r": ("rmse", x), "k": ("krcc", x)}
    found = resampled(wanted, mos, draw(90, 300, 7, content))
    for name, statistic in (("s", srcc), ("p", plcc), ("r", rmse)):
        single = bootstrap_ci(x, mos, statistic, n=300, seed=7, groups=content)
        assert np.quantile(found[name], [0.025, 0.975]) == pytest.approx([single.low, single.high])
    shared = resampled_srcc([x, -x], mos, draw(90, 300, 7, content))
    assert shared[0] == pytest.approx(found["s"]) and shared[1] == pytest.approx(-found["s"])
    assert units_of(90, content) == ("content", 15) and units_of(90, None) == ("image", 90)
    assert units_of(3, ["a", "b", "c"]) == ("image", 3)


def test_few_units_widen_the_interval():
    values = np.random.default_rng(0).normal(size=100_000)
    low, high = expanded_interval(values, 100_000)
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.03)
    low, high = expanded_interval(values, 10)
    reach = stats.t.ppf(0.975, 9) * math.sqrt(10 / 9)
    assert (low, high) == pytest.approx((-reach, reach), abs=0.06)
    assert math.isnan(expanded_interval(np.full(5, math.nan), 10)[0])


def test_kendall_of_a_thousand_resamples_takes_less_than_a_second():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 800))
    start = time.process_time()
    for counts in draw(800, 1000, 0):
        resampled_krcc(x, y, counts)
    assert time.process_time() - start < 1.0
