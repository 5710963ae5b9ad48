"""Breakdowns, k-split medians, averages and the pooled correlation."""

import math

import numpy as np
import pytest
from scipy import stats

from rali_zoo.metrics import average, breakdown, ksplit, pooled_srcc, srcc


def test_breakdown_counts_an_image_in_each_of_its_groups():
    pred, mos = [1, 2, 3, math.nan, 5, 0], [1, 3, 2, 4, 5, 6]
    labels = [["a"], ["a"], ["a", ("b", 1)], ["a"], [("b", 1)], []]
    found = breakdown(pred, mos, labels)
    assert list(found) == ["a", ("b", 1)]
    assert (found["a"].n, found["a"].failed) == (4, 1)
    assert found["a"].srcc == pytest.approx(stats.spearmanr([1, 2, 3], [1, 3, 2]).statistic)
    assert found[("b", 1)].srcc == pytest.approx(1)
    assert math.isnan(breakdown([1, 1], [1, 2], [["x"], ["x"]])["x"].srcc)
    with pytest.raises(ValueError, match="pair up"):
        breakdown([1, 2], [1, 2], [["x"]])


def test_ksplit_draws_whole_contents():
    rng = np.random.default_rng(0)
    content = np.repeat(np.arange(25), 8)
    mos = rng.normal(size=200)
    pred = mos + rng.normal(size=200)
    found = ksplit(pred, mos, [f"c{c}" for c in content], repeats=10, seed=4)
    again = np.random.default_rng(4)
    values = []
    for _ in range(10):
        rows = np.isin(content, again.permutation(25)[:5])
        assert rows.sum() == 40
        values.append(srcc(pred[rows], mos[rows]))
    assert found.median == pytest.approx(np.median(values))
    assert (found.low, found.high) == (min(values), max(values)) and found.undefined == 0
    assert ksplit(pred, mos).median != found.median
    constant = ksplit(np.ones(50), np.arange(50.0))
    assert math.isnan(constant.median) and constant.undefined == 10
    for wrong in ({"share": 1.0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="share"):
            ksplit(pred, mos, **wrong)
    with pytest.raises(ValueError, match="pair up"):
        ksplit(pred, mos, ["a"])


def test_averages():
    found = average({"koniq": 0.9, "livec": 0.6}, {"koniq": 300, "livec": 100})
    assert (found.unweighted, found.weighted, found.missing) == (
        pytest.approx(0.75),
        pytest.approx(0.825),
        (),
    )
    gap = average({"koniq": 0.9, "livec": None, "spaq": math.nan}, {"koniq": 3, "livec": 1, "spaq": 1})
    assert gap.unweighted is None and gap.weighted is None and gap.missing == ("livec", "spaq")
    for values in ({}, {"other": 0.5}):
        with pytest.raises(ValueError, match="size of each"):
            average(values, {"koniq": 3})


def test_pooling_sees_scores_that_mean_different_things():
    rng = np.random.default_rng(0)
    low, high = rng.uniform(1, 3, size=100), rng.uniform(3, 5, size=100)
    alike = pooled_srcc([(low, low), (high, high)])
    assert alike.srcc == 1 and alike.n == 200 and alike.failed == 0 and alike.reason == ""
    shifted = pooled_srcc([(low + 9, low), (high, high)])  # perfect inside each set, reversed across
    assert shifted.srcc < 0 and shifted.srcc == pytest.approx(
        stats.spearmanr(np.concatenate([low + 9, high]), np.concatenate([low, high])).statistic
    )
    lost = pooled_srcc([(np.where(low > 2.5, math.nan, low), low), (high, high)])
    assert lost.failed > 0 and lost.srcc == 1 and lost.srcc_failures_worst < 0.9
    assert pooled_srcc([([1, 1], [1, 2])]).reason == "all 2 predictions are 1"
    for wrong in ([], [([1, 2], [1, 2, 3])]):
        with pytest.raises(ValueError, match="data set"):
            pooled_srcc(wrong)
