"""Comparisons of scorers: pairs against the single tests, failures, groups and speed."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from rali_zoo.bench import comparison
from rali_zoo.bench.comparison import compare
from rali_zoo.metrics import holm, meng_rosenthal_rubin, paired_bootstrap, srcc, srcc_failures_worst
from rali_zoo.report import to_json


def make(n=300, seed=0):
    rng = np.random.default_rng(seed)
    mos = rng.normal(size=n)
    return mos, {
        "bad": mos + 2.0 * rng.normal(size=n),
        "good": mos + 0.5 * rng.normal(size=n),
        "like": mos + 0.52 * rng.normal(size=n),
    }


def test_pairs_are_the_single_tests():
    mos, table = make()
    found = compare(mos, table, seed=3, resamples=400)
    assert list(found.values) == ["good", "like", "bad"]
    assert [(p.a, p.b) for p in found.pairs] == [("good", "like"), ("good", "bad"), ("like", "bad")]
    for pair in found.pairs:
        a, b = table[pair.a], table[pair.b]
        mrr = meng_rosenthal_rubin(srcc(a, mos), srcc(b, mos), srcc(a, b), 300)
        boot = paired_bootstrap(a, b, mos, n=400, seed=3)
        assert pair.p_mrr == pytest.approx(mrr.p_value, rel=1e-6)
        assert pair.difference == pytest.approx(boot.difference)
        assert (pair.low, pair.high) == pytest.approx((boot.low, boot.high), abs=0.02)
        error = (pair.high - pair.difference) / stats.t.isf(0.025, 299)
        assert pair.p_bootstrap == pytest.approx(2 * stats.t.sf(abs(pair.difference) / error, 299))
        assert (pair.p_bootstrap < 0.05) == (not pair.low <= 0 <= pair.high)
        assert pair.p_value == max(pair.p_mrr, pair.p_bootstrap) and pair.n == 300
    assert [p.p_holm for p in found.pairs] == pytest.approx(holm([p.p_value for p in found.pairs]))
    assert found.best == ("good", "like") and found.letters == {"good": ("a",), "like": ("a",), "bad": ("b",)}


def test_contents_are_the_units():
    """Twenty copies of every image are no evidence; drawn by content they add none."""
    mos, table = make(n=30)
    copied = {name: np.repeat(x, 20) for name, x in table.items()}
    content = [f"c{k // 20}" for k in range(600)]
    fooled, found = compare(np.repeat(mos, 20), copied), compare(np.repeat(mos, 20), copied, content)
    single = compare(mos, table)
    assert (found.unit, found.units, fooled.unit) == ("content", 30, "image")
    for copies, once, wrong in zip(found.pairs, single.pairs, fooled.pairs, strict=True):
        assert copies.p_bootstrap == pytest.approx(once.p_bootstrap, abs=0.03)
        assert copies.p_value > wrong.p_value


def test_failed_images_are_left_out_of_a_pair_or_count_as_worst():
    mos, table = make()
    table["good"][:30], table["like"][20:40] = math.nan, math.nan
    found = compare(mos, table, resamples=100)
    pair = next(p for p in found.pairs if {p.a, p.b} == {"good", "like"})
    both = {name: table[name][40:] for name in ("good", "like")}
    assert pair.n == 260 and pair.srcc_a == pytest.approx(srcc(both[pair.a], mos[40:]))
    assert {p.n for p in found.pairs} == {260, 270, 280}
    assert found.values["good"] == srcc_failures_worst(table["good"], mos)
    worst = compare(mos, table, resamples=100, failures="worst")
    assert worst.values == found.values and {p.n for p in worst.pairs} == {300}
    top = worst.pairs[0]
    assert top.difference == pytest.approx(worst.values[top.a] - worst.values[top.b]) and top.difference > 0


def test_refusing_scorer_is_not_among_the_best():
    """It refuses a quarter of the images, those it is worst at; on the others it beats the honest one."""
    mos, table = make()
    error = np.abs(stats.rankdata(table["good"]) - stats.rankdata(mos))
    refusing = np.where(error > np.quantile(error, 0.75), math.nan, table["good"])
    scores = {"honest": table["like"], "refusing": refusing}
    assert compare(mos, scores, resamples=100).pairs[0].difference < 0
    for failures in ("left_out", "worst"):
        assert compare(mos, scores, resamples=100, failures=failures).best == ("honest",)


def test_equal_and_undefined_scorers():
    mos, table = make(n=80)
    same = compare(mos, {"a": table["good"], "b": np.exp(table["good"])}, resamples=50)
    assert same.pairs[0].p_holm == 1 and same.best == ("a", "b")
    table["flat"], table["none"] = np.ones(80), np.full(80, math.nan)
    table["first"], table["last"] = table["good"].copy(), table["good"].copy()
    table["first"][40:], table["last"][:40] = math.nan, math.nan
    found = compare(mos, table, resamples=50)
    assert set(found.undefined) == {"flat", "none"} and "all 80 predictions are 1" in found.undefined["flat"]
    apart = next(p for p in found.pairs if {p.a, p.b} == {"first", "last"})
    assert apart.n == 0 and "0 pairs" in apart.reason and math.isnan(apart.p_holm)
    assert len(found.pairs) == 10 and set(found.letters) == set(table) - {"flat", "none"}
    assert compare(mos, {"flat": np.ones(80)}).best == ()
    assert to_json(found) == to_json(compare(mos, table, resamples=50))


def test_wrong_settings():
    mos, table = make(n=20)
    with pytest.raises(ValueError, match="'short'"):
        compare(mos, {"short": [1, 2, 3]})
    with pytest.raises(ValueError, match="left_out"):
        compare(mos, table, failures="dropped")
    with pytest.raises(ValueError, match="finite"):
        compare(np.full(20, math.nan), table)
    with pytest.raises(ValueError, match="at least two"):
        compare(mos, table, content=["one"] * 20)


def test_kept_pairs_are_those_that_were_computed(tmp_path, monkeypatch):
    mos, table = make(n=60)
    table["flat"] = np.ones(60)
    table["gaps"] = np.where(np.arange(60) < 3, math.nan, next(iter(table.values())))
    plain, first = compare(mos, table), compare(mos, table, memory=tmp_path)
    (kept,) = tmp_path.glob("*.npz")
    computed = []
    real = comparison._numbers
    monkeypatch.setattr(comparison, "_numbers", lambda *given: computed.append(1) or real(*given))
    assert to_json(plain) == to_json(first) == to_json(compare(mos, table, memory=tmp_path)) and not computed
    for other in ({"seed": 1}, {"failures": "worst"}, {"resamples": 500}, {"content": ["a", "b"] * 30}):
        assert to_json(compare(mos, table, **other, memory=tmp_path)) == to_json(compare(mos, table, **other))
    assert len(list(tmp_path.glob("*.npz"))) == 5
    kept.write_bytes(kept.read_bytes()[:300])
    assert to_json(compare(mos, table, memory=tmp_path)) == to_json(plain)


def test_sixty_scorers_take_seconds():
    rng = np.random.default_rng(0)
    mos = rng.normal(size=800)
    table = {f"m{k}": mos + (0.3 + 0.02 * k) * rng.normal(size=800) for k in range(60)}
    for x in table.values():
        x[[5, 99]] = math.nan  # two corrupt images, for every scorer
    start = time.process_time()
    found = compare(mos, table, content=[f"c{k % 40}" for k in range(800)])
    assert len(found.pairs) == 1770 and time.process_time() - start < 6
