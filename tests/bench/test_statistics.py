"""The statistics of one cell against SciPy, with planted troubles, and as JSON."""

import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rali_zoo import metrics
from rali_zoo.bench.statistics import cell_statistics
from rali_zoo.metrics.bootstrap import Resamples, percentile_interval
from rali_zoo.report import STATISTICS, six


def approx(value, rel=1e-5):
    """Files hold six digits."""
    return pytest.approx(value, rel=rel, abs=1e-9)


def make(n=120, noise=0.5, seed=0):
    """MOS in [1, 5] and the scores of a good scorer on its own scale."""
    rng = np.random.default_rng(seed)
    mos = rng.uniform(1, 5, size=n)
    return mos, 20 * (mos + noise * rng.normal(size=n)) - 7


def test_numbers_are_those_of_scipy():
    mos, x = make()
    found = cell_statistics(mos, x, resamples=100)
    assert (found.n, found.failed, found.status, found.reason) == (120, 0, "ok", "")
    assert found.srcc.value == approx(stats.spearmanr(x, mos).statistic)
    assert found.krcc.value == approx(stats.kendalltau(x, mos).statistic)
    assert found.plcc.value == approx(stats.pearsonr(x, mos).statistic)
    fitted = metrics.fit_logistic(x, mos).fitted
    assert found.plcc_mapped.value == approx(stats.pearsonr(fitted, mos).statistic)
    assert found.rmse_mapped.value == approx(np.sqrt(np.mean((fitted - mos) ** 2)))
    assert (
        found.rmse.value is None and found.mae.value is None and found.srcc_failures_worst == found.srcc.value
    )
    for name in ("srcc", "krcc", "plcc", "plcc_mapped", "rmse_mapped"):
        estimate = getattr(found, name)
        assert estimate.low < estimate.value < estimate.high
    on_scale = cell_statistics(mos, mos + 0.5, on_mos_scale=True, resamples=50)
    assert on_scale.rmse.value == approx(0.5)
    assert on_scale.rmse_mapped.value < 1e-3
    assert on_scale.mae.value == approx(0.5) and all(getattr(on_scale, name).low for name in ("rmse", "mae"))
    assert set(STATISTICS) <= set(on_scale.model_dump())


def test_intervals_resample_contents():
    mos, x = make()
    content = [f"c{k % 20}" for k in range(120)]
    alone, grouped = (
        cell_statistics(mos, x, resamples=200),
        cell_statistics(mos, x, content=content, resamples=200),
    )
    assert alone.interval["unit"] == "image" and alone.interval["units"] == 120
    assert grouped.interval["unit"] == "content" and grouped.interval["units"] == 20
    values = Resamples(120, 200, 0, content).srcc([x], mos)[0]
    low, high = percentile_interval(values, units=20)
    assert (grouped.srcc.low, grouped.srcc.high) == (six(low), six(high))
    assert grouped.srcc.value == alone.srcc.value and grouped.srcc.low != alone.srcc.low
    single = cell_statistics(mos, x, content=["one"] * 120)
    assert single.srcc.value == alone.srcc.value and single.srcc.low is None
    assert "one content" in single.interval["reason"]


def test_scores_that_say_nothing_have_an_interval_that_reaches_below_zero():
    """The mapping is fitted once; where it fits noise, mapped scores run backwards in some resamples."""
    rng = np.random.default_rng(0)
    found = cell_statistics(rng.uniform(1, 5, 60), rng.normal(size=60), resamples=200)
    assert found.plcc_mapped.low < 0 <= found.plcc_mapped.value


def test_planted_troubles_are_visible():
    mos, x = make(n=200)
    assert cell_statistics(mos, -x, resamples=50).srcc.value < -0.8
    constant = cell_statistics(mos, np.full(200, 3.0))
    assert constant.status == "undefined" and constant.reason == "all 200 predictions are 3"
    assert constant.srcc.value is None and constant.srcc_failures_worst is None
    lost = x.copy()
    lost[[3, 77]] = math.nan, math.inf
    two = cell_statistics(mos, lost, resamples=50)
    assert (two.n, two.failed, two.status) == (200, 2, "ok")
    assert two.srcc.value == approx(stats.spearmanr(np.delete(x, [3, 77]), np.delete(mos, [3, 77])).statistic)
    assert two.srcc_failures_worst < two.srcc.value
    none = cell_statistics(mos, np.full(200, math.nan))
    assert none.failed == 200 and none.reason.startswith("200 of 200 images failed; 0 pairs")
    assert cell_statistics(mos[:2], x[:2]).fit["reason"].startswith("2 scored images")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.5), st.booleans())
def test_a_scorer_that_fails_never_ranks_above_itself_without(seed, share, hard_ones):
    """Whichever images it refuses, on purpose those it is worst at, refusing does not pay."""
    mos, x = make(n=60, seed=seed)
    error = np.abs(stats.rankdata(x) - stats.rankdata(mos))
    order = np.argsort(-error) if hard_ones else np.random.default_rng(seed).permutation(60)
    refusing = x.copy()
    refusing[order[: math.ceil(share * 60)]] = math.nan
    honest, cheat = metrics.srcc_failures_worst(x, mos), metrics.srcc_failures_worst(refusing, mos)
    assert cheat <= honest
    if hard_ones:
        scored = np.isfinite(refusing)
        assert metrics.srcc(refusing[scored], mos[scored]) >= honest  # what it would have gained


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([np.exp, np.cbrt, lambda v: 3 * v - 100]))
def test_ranks_survive_any_rising_map(seed, rising):
    mos, x = make(n=40, seed=seed)
    x = np.round(x / 20, 1)  # with ties
    one, other = (cell_statistics(mos, v, resamples=20) for v in (x, rising(x)))
    assert other.srcc == one.srcc and other.krcc == one.krcc
    assert (other.ties, other.distinct, other.ksplit) == (one.ties, one.distinct, one.ksplit)
    assert other.tests["p_test"] == one.tests["p_test"]
    flipped = cell_statistics(mos, -x, resamples=20)
    assert flipped.srcc.value == approx(-one.srcc.value)
    assert flipped.srcc.low == approx(-one.srcc.high)
    assert flipped.plcc_mapped.value == approx(one.plcc_mapped.value)


def test_ties_are_counted():
    mos = np.arange(6.0)
    found = cell_statistics(mos, [1, 1, 2, 3, 3, 3], resamples=50)
    assert found.ties == approx(5 / 6) and found.distinct == 3


def test_groups_and_tests_where_the_data_allow():
    level = np.array([1 + k % 5 for k in range(60)] + [0] * 10, dtype=float)
    content = [f"c{k // 10}" for k in range(60)] + [f"p{k}" for k in range(10)]
    distortion = [("blur", "noise")[k // 5 % 2] for k in range(60)] + ["pristine"] * 10
    rng = np.random.default_rng(0)
    mos = np.clip(4.8 - 0.7 * level + 0.2 * rng.normal(size=70), 1, 5)
    found = cell_statistics(
        mos,
        -level,
        std=np.full(70, 0.6),
        raters=16,
        content=content,
        distortion=distortion,
        level=level,
        resamples=50,
    )
    assert found.tests["d_test"] == {"value": 1.0, "pristine": 10, "distorted": 60}
    assert found.tests["l_test"] == {"value": pytest.approx(1), "series": 12, "constant": 0}
    assert found.tests["p_test"]["value"] > 0.9 and found.tests["p_test"]["pairs"] > 500
    assert found.tests["krasula"]["auc_better"] > 0.95 and found.tests["krasula"]["assumed"] == ""
    assert {name: group.n for name, group in found.by_distortion.items()} == {
        "blur": 30,
        "noise": 30,
        "pristine": 10,
    }
    assert list(found.by_level) == ["1", "2", "3", "4", "5"] and found.by_level["3"].n == 12
    assert found.by_distortion["pristine"].srcc is None


def test_tests_say_why_there_is_no_number():
    mos, x = make(n=40)
    found = cell_statistics(1 + mos / 10, x, std=[0.5] * 39 + [math.nan], resamples=50).tests
    assert "pristine" in found["d_test"]["reason"] and "three levels" in found["l_test"]["reason"]
    assert "more than 1 MOS" in found["p_test"]["reason"] and "1 images" in found["krasula"]["reason"]
    mixed = cell_statistics(mos, x, distortion=["blur;noise"] * 40, level=[2] * 40, resamples=50)
    assert set(mixed.by_distortion) == {"blur", "noise"} and mixed.tests["l_test"]["value"] is None


def test_json_is_the_same_bytes_twice_and_short():
    mos, x = make()
    x[5] = math.nan
    one, two = (
        json.dumps(cell_statistics(mos, x, resamples=100).model_dump(), allow_nan=False) for _ in "ab"
    )
    assert one == two
    back = json.loads(one)
    assert {"value", "low", "high"} == set(back["srcc"]) and back["rmse"]["value"] is None
    assert back["srcc"]["value"] == float(f"{metrics.srcc(np.delete(x, 5), np.delete(mos, 5)):.6g}")
    json.dumps(cell_statistics(mos, np.ones(120)).model_dump(), allow_nan=False)


def test_wrong_columns_are_refused():
    mos, x = make(n=10)
    for wrong in ({"content": ["a"]}, {"std": [1.0]}, {"level": [1]}, {"distortion": []}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            cell_statistics(mos, x, **wrong)
    with pytest.raises(ValueError, match="scores"):
        cell_statistics(mos, x[:3])
    with pytest.raises(ValueError, match="finite"):
        cell_statistics(np.where(mos > 2, mos, math.nan), x)


def test_a_cell_of_eight_hundred_images_takes_a_second():
    mos, x = make(n=800)
    start = time.process_time()
    cell_statistics(mos, x, std=np.full(800, 0.6), content=[f"c{k % 40}" for k in range(800)])
    assert time.process_time() - start < 1.5


@pytest.mark.slow
def test_forty_entries_on_five_thousand_images_take_twenty_seconds():
    """20 s of CPU were measured beside other work; one entry alone took 2.9 s before draws were shared."""
    mos, _ = make(n=5000)
    rng, start = np.random.default_rng(0), time.process_time()
    for k in range(40):
        cell_statistics(mos, mos + (0.5 + k / 20) * rng.normal(size=5000))
    assert time.process_time() - start < 40  # twice what a quiet machine needs
