"""Distances between data sets in a space: against independent formulas and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from rali_zoo.metrics.domains import common_scale, covariance_cka, linear_cka, mmd, separability


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def hsic_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA by its definition, with centring matrices and traces."""
    n = len(x)
    h = np.eye(n) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


@pytest.mark.parametrize(("d", "e"), [(3, 5), (60, 70)])
def test_linear_cka_is_the_definition(d, e):
    x, y = cloud(40, d, 0), cloud(40, e, 1)
    y[:, :3] += 2 * x[:, :3]
    assert linear_cka(x, y) == pytest.approx(hsic_cka(x, y))


def test_linear_cka_is_blind_to_rotation_shift_and_scale_alone():
    x = cloud(50, 4, 0)
    turn, _ = np.linalg.qr(cloud(4, 4, 1))
    assert linear_cka(x, 3 * x @ turn + 7) == pytest.approx(1)
    assert linear_cka(x, x * [10, 1, 1, 1]) < 0.9
    assert linear_cka(cloud(5000, 2, 2), cloud(5000, 2, 3)) < 0.01
    assert np.isnan(linear_cka(x, np.ones((50, 2))))
    with pytest.raises(ValueError, match="same images"):
        linear_cka(x, x[:-1])


def test_covariance_cka_compares_directions():
    x, y = cloud(300, 3, 0) * [3, 1, 0.1], cloud(200, 3, 1, shift=5) * [1, 3, 0.1]
    a, b = np.cov(x.T), np.cov(y.T)
    expected = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    assert covariance_cka(x, y) == pytest.approx(expected)
    assert covariance_cka(x, 2 * x + 9) == pytest.approx(1)
    apart = np.zeros((2, 10, 2))
    apart[0, :, 0] = apart[1, :, 1] = range(10)
    assert covariance_cka(*apart) == pytest.approx(0)


def test_mmd_is_the_double_sum():
    x, y, s = cloud(7, 2, 0), cloud(9, 2, 1, shift=1), 1.3

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * s * s))

    within_x = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    within_y = np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    found = mmd(x, y, bandwidth=s)
    assert found.squared == pytest.approx(within_x + within_y - 2 * across)
    assert found.bandwidth == s


def test_mmd_takes_the_median_distance():
    x, y = cloud(6, 3, 0), cloud(5, 3, 1)
    both = np.vstack([x, y])
    gaps = [np.linalg.norm(both[i] - both[j]) for i in range(11) for j in range(i)]
    assert mmd(x, y).bandwidth == pytest.approx(np.median(gaps))


def test_mmd_finds_what_is_there_and_nothing_else():
    same = [mmd(cloud(60, 5, 2 * s), cloud(60, 5, 2 * s + 1), permutations=99) for s in range(40)]
    assert abs(np.mean([m.squared for m in same])) < 2e-3, "unbiased"
    assert sum(m.p_value <= 0.1 for m in same) <= 10, "p-values of equal distributions are uniform"
    wide = cloud(60, 5, 1) * 2
    assert mmd(cloud(60, 5, 0), wide, permutations=199).p_value == pytest.approx(1 / 200)
    with pytest.raises(ValueError, match="bandwidth"):
        mmd(np.ones((4, 2)), np.ones((5, 2)))


def test_separability_between_chance_and_certainty():
    equal = separability([cloud(150, 4, s) for s in range(3)])
    assert equal.chance == pytest.approx(1 / 3) and abs(equal.accuracy - 1 / 3) < 0.08
    assert separability([cloud(60, 4, 0), cloud(60, 4, 1, shift=9)]).accuracy == 1
    # two normal clouds a distance of 2 apart: the best classifier is right with probability Phi(1)
    near = separability([cloud(3000, 1, 0), cloud(3000, 1, 1, shift=2)])
    assert near.accuracy == pytest.approx(0.8413, abs=0.015)


def test_separability_is_balanced():
    skewed = separability([cloud(400, 3, 0), cloud(20, 3, 1)])
    assert skewed.accuracy < 0.65, "always naming the larger set is no skill"


def test_groups_stay_together():
    # every image is one of ten photographs, and each photograph is of one set only: learnt by heart
    photos = cloud(10, 30, 0, shift=0)
    sets = [np.repeat(photos[:5], 12, axis=0), np.repeat(photos[5:], 12, axis=0)]
    names = [[f"{s}-{i}" for i in range(5) for _ in range(12)] for s in range(2)]
    assert separability(sets).accuracy == 1
    assert separability(sets, groups=names).accuracy < 0.9


def test_common_scale():
    mos = np.linspace(1, 5, 30)
    found = common_scale({"a": (mos, mos), "b": (mos - 3, mos), "c": (-mos, mos)})
    assert found.each == pytest.approx({"a": 1, "b": 1, "c": -1}) and found.mean == pytest.approx(1 / 3)
    expected = spearmanr(np.concatenate([mos, mos - 3, -mos]), np.tile(mos, 3)).statistic
    assert found.pooled == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.ones(4), np.ones((1, 3)), np.full((3, 2), np.nan)])
def test_what_is_no_embedding_is_refused(bad):
    with pytest.raises(ValueError):
        mmd(bad, np.ones((3, 2)))
    with pytest.raises(ValueError):
        separability([bad, np.ones((3, 2))])
