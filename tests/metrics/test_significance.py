"""The test of dependent correlations against the R package cocor, Holm by hand, letters by their meaning."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rali_zoo.metrics import groups, holm, meng_rosenthal_rubin

#: r_jk, r_jh, r_kh, n and the z of ``meng1992`` as cocor printed it, with inputs rounded to four places:
#: rmcorr's vignette on model comparison, and two course books.
COCOR = [
    (0.8066, 0.2383, 0.2255, 177, 8.3907),
    (-0.1741, 0.2015, 0.3734, 646, -8.5080),
    (0.1724, 0.1795, 0.5387, 646, -0.1909),
    (0.7245, 0.7108, 0.8972, 15549, 5.5496),
]


@pytest.mark.parametrize("r_a, r_b, r_ab, n, z", COCOR)
def test_as_cocor(r_a, r_b, r_ab, n, z):
    # The difference of two correlations near each other keeps only two of the four printed digits.
    tolerance = abs(z) * 1e-4 / abs(r_a - r_b) + 1e-3
    assert meng_rosenthal_rubin(r_a, r_b, r_ab, n, kind="pearson").z == pytest.approx(z, abs=tolerance)


@settings(max_examples=100, deadline=None)
@given(*[st.floats(-0.95, 0.95)] * 3, st.integers(4, 5000))
def test_the_formula_written_another_way(r_a, r_b, r_ab, n):
    """Equations 1 to 3 with the variance of the difference of Fisher's z spelled out."""
    square = (r_a * r_a + r_b * r_b) / 2
    f = (1 - r_ab) / 2 / (1 - square)
    factor = 1 + square / (1 - square) * (1 - min(f, 1))
    variance = 2 * (1 - r_ab) * factor / (n - 3)
    z = 0.5 * math.log((1 + r_a) * (1 - r_b) / ((1 - r_a) * (1 + r_b))) / math.sqrt(variance)
    found = meng_rosenthal_rubin(r_a, r_b, r_ab, n, kind="pearson")
    assert found.z == pytest.approx(z, rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=1e-6, abs=1e-300)
    mirrored = meng_rosenthal_rubin(r_b, r_a, r_ab, n, kind="pearson")
    assert mirrored.z == pytest.approx(-found.z) and mirrored.p_value == pytest.approx(found.p_value)
    ranked = meng_rosenthal_rubin(r_a, r_b, r_ab, n)
    assert ranked.z * math.sqrt(1 + square / 2) == pytest.approx(z, rel=1e-9, abs=1e-9)


def test_edges():
    assert meng_rosenthal_rubin(0.8, 0.8, 1.0, 100) == meng_rosenthal_rubin(0.8, 0.8, 0.2, 9)
    assert meng_rosenthal_rubin(0.8, 0.8, 1.0, 100).p_value == 1
    assert meng_rosenthal_rubin(1.0, 0.5, 0.5, 100).p_value == 0
    assert math.isnan(meng_rosenthal_rubin(0.8, 0.7, 0.5, 3).p_value)
    assert math.isnan(meng_rosenthal_rubin(float("nan"), 0.7, 0.5, 30).p_value)
    with pytest.raises(ValueError, match="r_ab=1.5"):
        meng_rosenthal_rubin(0.1, 0.2, 1.5, 30)
    with pytest.raises(ValueError, match="kendall"):
        meng_rosenthal_rubin(0.1, 0.2, 0.5, 30, kind="kendall")


def test_holm_by_hand():
    """0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04 x 1, then never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert np.array_equal(holm([0.01, math.nan, 0.2]), [0.02, math.nan, 0.2], equal_nan=True)
    assert holm([]).size == 0
    with pytest.raises(ValueError, match="lies in"):
        holm([1.2])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_holm_rejects_as_its_steps_do(p_values, alpha):
    """Step down: go on while p_(i) * (m - i) is below alpha, stop at the first that is not."""
    rejected = set()
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] * (len(p_values) - step) >= alpha:
            break
        rejected.add(i)
    assert set(np.flatnonzero(holm(p_values) < alpha)) == rejected


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 7), st.data())
def test_letters_say_exactly_which_pairs_differ(count, data):
    names = [f"m{k}" for k in range(count)]
    values = {n: data.draw(st.floats(-1, 1)) for n in names}
    pairs = list(combinations(names, 2))
    p_values = {pair: data.draw(st.sampled_from([0.001, 0.5, math.nan])) for pair in pairs}
    found = groups(values, p_values)
    for (a, b), p in p_values.items():
        assert bool(set(found.letters[a]) & set(found.letters[b])) == (not p < 0.05)
    assert all(found.letters.values())
    order = sorted(names, key=lambda n: (-values[n], n))
    assert list(found.letters) == order and found.best[0] == order[0] and "a" in found.letters[order[0]]
    apart = {n for pair, p in p_values.items() if p < 0.05 and order[0] in pair for n in pair} - {order[0]}
    assert set(found.best) == set(names) - apart
    members = {}
    for name, letters in found.letters.items():
        for letter in letters:
            members.setdefault(letter, set()).add(name)
    assert not any(a < b or (a == b and i != j) for i, a in members.items() for j, b in members.items())


def test_letters_of_a_chain():
    found = groups({"x": 0.9, "y": 0.8, "z": 0.7}, {("z", "x"): 0.01})
    assert found.best == ("x", "y")
    assert found.letters == {"x": ("a",), "y": ("a", "b"), "z": ("b",)}
    many = {f"m{k:02d}": -float(k) for k in range(30)}
    every = groups(many, {pair: 0.0 for pair in combinations(many, 2)})
    assert every.letters["m25"] == ("z",) and every.letters["m26"] == ("aa",)
    assert groups({}, {}).best == ()
    with pytest.raises(ValueError, match="no value"):
        groups({"x": 1.0}, {("x", "y"): 0.1})
    with pytest.raises(ValueError, match="undefined scorers"):
        groups({"x": math.nan}, {})
