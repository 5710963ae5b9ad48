"""The bootstrap by counts against the bootstrap by rows, its coverage, clusters and paired differences."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rali_zoo.metrics import bootstrap_ci, krcc, mae, paired_bootstrap, plcc, rmse, srcc
from rali_zoo.metrics.bootstrap import Resamples, percentile_interval


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 3)), min_size=2, max_size=25
    ).filter(lambda rows: sum(r[2] for r in rows) >= 1),
    st.sampled_from([srcc, plcc, krcc, rmse, mae]),
)
def test_counts_equal_repeated_rows(rows, statistic):
    """The fast path is the plain statistic of the rows written out, ties and constants included."""
    x, y, times = np.array(rows, dtype=float).T
    drawn = Resamples(len(rows), 1)
    drawn._drawn = times[:, None].astype(np.uint16)
    fast = drawn.values(statistic, x / 3, y)[0]
    plain = statistic(np.repeat(x / 3, times.astype(int)), np.repeat(y, times.astype(int)))
    assert fast == pytest.approx(plain, abs=1e-9, nan_ok=True)


def test_the_slow_path_agrees_with_the_fast_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    fast = bootstrap_ci(x, y, srcc, n=200)
    slow = bootstrap_ci(x, y, lambda a, b: srcc(a, b), n=200)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)
    assert bootstrap_ci(x, y, krcc, n=50).low < krcc(x, y)


def test_coverage_of_a_correlation():
    """About 95 % of the intervals hold the true value; 100 trials leave a wide margin."""
    rng, rho, inside = np.random.default_rng(1), 0.7, 0
    for trial in range(100):
        x = rng.normal(size=100)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=100)
        result = bootstrap_ci(x, y, plcc, n=300, seed=trial)
        inside += result.low <= rho <= result.high
    assert 86 <= inside <= 100


def test_clusters_widen_the_interval():
    """Twenty images of each content share its error, so there are 20 independent units, not 400."""
    rng = np.random.default_rng(2)
    content = np.repeat(np.arange(20), 20)
    mos = rng.normal(size=400)
    pred = mos + 1.5 * rng.normal(size=20)[content]
    alone = bootstrap_ci(pred, mos, srcc, n=500)
    grouped = bootstrap_ci(pred, mos, srcc, n=500, groups=[f"ref{c}" for c in content])
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert grouped.value == alone.value


def test_groups_of_one_are_no_groups():
    x, y = np.arange(20.0), np.arange(20.0) % 7
    assert bootstrap_ci(x, y, n=50) == bootstrap_ci(x, y, n=50, groups=list(range(20)))


def test_the_seed_decides():
    x, y = np.arange(30.0), np.sin(np.arange(30.0))
    assert bootstrap_ci(x, y, n=100, seed=3) == bootstrap_ci(x, y, n=100, seed=3)
    assert bootstrap_ci(x, y, n=100, seed=3) != bootstrap_ci(x, y, n=100, seed=4)


def test_undefined_resamples_are_counted():
    result = bootstrap_ci([0, 0, 1], [1, 2, 3], n=400)
    assert 0 < result.undefined < 400  # whenever the third image is not drawn, or alone
    constant = bootstrap_ci([1, 1, 1], [1, 2, 3], n=10)
    assert constant.undefined == 10 and math.isnan(constant.low) and math.isnan(constant.value)


def test_paired_differences():
    rng = np.random.default_rng(5)
    mos = rng.normal(size=300)
    good, bad = mos + 0.3 * rng.normal(size=300), mos + 1.0 * rng.normal(size=300)
    better = paired_bootstrap(good, bad, mos, n=500)
    assert better.difference == pytest.approx(srcc(good, mos) - srcc(bad, mos))
    assert 0 < better.low < better.difference < better.high and better.p_value == pytest.approx(2 / 501)
    mirrored = paired_bootstrap(bad, good, mos, n=500)
    assert mirrored.difference == -better.difference and mirrored.low == pytest.approx(-better.high)
    same = paired_bootstrap(good, good, mos, n=100)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_p_value_agrees_with_the_interval():
    rng = np.random.default_rng(6)
    for trial in range(30):
        mos = rng.normal(size=60)
        a, b = mos + rng.normal(size=60), mos + 0.8 * rng.normal(size=60)
        result = paired_bootstrap(a, b, mos, n=400, seed=trial)
        if result.p_value < 0.05:
            assert not result.low <= 0 <= result.high


def test_no_difference_is_seldom_found():
    rng, found = np.random.default_rng(7), 0
    for trial in range(60):
        mos = rng.normal(size=80)
        a, b = mos + rng.normal(size=80), mos + rng.normal(size=80)
        found += paired_bootstrap(a, b, mos, n=200, seed=trial).p_value < 0.05
    assert found <= 9  # 3 expected


def test_two_thousand_resamples_of_two_thousand_images_take_seconds():
    rng = np.random.default_rng(8)
    x = np.round(rng.normal(size=2000), 1)
    start = time.process_time()
    bootstrap_ci(x, x + rng.normal(size=2000), srcc, n=2000)
    assert time.process_time() - start < 3.0


def test_bad_settings():
    for wrong, message in (
        ({"level": 1.0}, "level"),
        ({"n": 0}, "resample"),
        ({"groups": ["a", "a", "a"]}, "1 content"),
        ({"groups": ["a", "b"]}, "2 contents"),
    ):
        with pytest.raises(ValueError, match=message):
            bootstrap_ci([1, 2, 3], [1, 2, 3], **wrong)
    with pytest.raises(ValueError, match="NaN"):
        paired_bootstrap([1, 2, 3], [1, 2, float("nan")], [1, 2, 3])


def test_kendall_of_many_rows_and_ties():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=2500), 1)
    y = x + rng.normal(size=2500)
    drawn = Resamples(2500, 3)
    for found, rows in zip(drawn.values(krcc, x, y), drawn._drawn.T, strict=True):
        assert found == pytest.approx(krcc(np.repeat(x, rows), np.repeat(y, rows)), abs=1e-12)


def test_all_scorers_share_the_resamples():
    rng = np.random.default_rng(1)
    mos = rng.normal(size=90)
    x = mos + rng.normal(size=90)
    content = [f"c{k % 15}" for k in range(90)]
    drawn = Resamples(90, 300, 7, content)
    assert (drawn.unit, drawn.units) == ("content", 15) and Resamples(3, 9, 0, "abc").unit == "image"
    for statistic in (srcc, plcc, rmse, mae):
        single = bootstrap_ci(x, mos, statistic, n=300, seed=7, groups=content)
        assert percentile_interval(drawn.values(statistic, x, mos)) == (single.low, single.high)
    both = drawn.srcc([x, -x], mos)
    assert both[0] == pytest.approx(-both[1])
    rows = np.arange(90) % 3 > 0
    part = drawn.only(rows)
    times = drawn._drawn[drawn._member]
    plain = [srcc(np.repeat(x[rows], t), np.repeat(mos[rows], t)) for t in times[rows].T]
    assert part.srcc([x[rows]], mos[rows])[0] == pytest.approx(plain)


def test_few_units_widen_the_interval():
    values = np.random.default_rng(0).normal(size=100_000)
    assert percentile_interval(values, units=100_000) == pytest.approx((-1.96, 1.96), abs=0.03)
    reach = stats.t.ppf(0.975, 9) * math.sqrt(10 / 9)
    assert percentile_interval(values, units=10) == pytest.approx((-reach, reach), abs=0.06)
    assert math.isnan(percentile_interval(np.full(5, math.nan), units=10)[0])
