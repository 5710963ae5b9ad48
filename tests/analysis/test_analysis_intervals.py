"""Intervals against textbook ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rali_zoo.analysis.intervals import agreement, difference, jackknife, mean_interval


def test_jackknife_of_a_mean_is_students_interval():
    x = np.random.default_rng(0).normal(3, 2, (20, 1))
    found = jackknife(lambda s: float(s[0].mean()), [x], [[str(i) for i in range(20)]], seed=0)
    low, high = stats.t.interval(0.95, 19, x.mean(), x.std(ddof=1) / math.sqrt(20))
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    bounded = jackknife(
        lambda s: float(s[0].mean()), [x], [[str(i) for i in range(20)]], 0, (low + 0.1, high - 0.1)
    )
    assert (bounded["low"], bounded["high"]) == pytest.approx((low + 0.1, high - 0.1))
    few = jackknife(lambda s: float(s[0].mean()), [x], [["a", "b"] * 10], seed=0)
    assert math.isnan(few["low"]) and few["value"] == found["value"]


def test_contents_stay_together():
    """Copies of an image add no information."""
    x = np.random.default_rng(1).normal(size=30)
    names = [str(i) for i in range(30)]
    once = mean_interval(x, names, 2000, 0)
    thrice = mean_interval(np.repeat(x, 3), np.repeat(names, 3), 2000, 0)
    assert thrice == pytest.approx(once)
    width = 2 * 1.96 * x.std() / math.sqrt(30)
    assert once["high"] - once["low"] == pytest.approx(width, rel=0.1)


def test_missing_scores_are_counted():
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 40)
    good, names = mos + rng.normal(0, 0.1, 40), [str(i) for i in range(40)]
    pred = np.where(np.arange(40) < 4, np.nan, good)
    found = agreement(pred, mos, names, 100, 0)
    assert found["n"] == 36 and found["failed"] == 4
    assert found["srcc"]["value"] == pytest.approx(stats.spearmanr(pred[4:], mos[4:])[0])
    gap = difference(pred, rng.normal(size=40), mos, names, 200, 0)
    assert gap["n"] == 36 and gap["srcc"]["low"] > 0 and gap["srcc"]["p"] == pytest.approx(2 / 201)
    nothing = agreement(np.full(40, np.nan), mos, names, 100, 0)
    assert nothing["n"] == 0 and math.isnan(nothing["plcc"]["value"])
    assert math.isnan(difference(np.full(40, np.nan), mos, mos, names, 100, 0)["srcc"]["p"])
