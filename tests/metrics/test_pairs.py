"""P-test and Krasula's analyses against loops over all pairs and against scikit-learn."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from rali_zoo.metrics import discriminable_pairs, krasula, p_test
from rali_zoo.metrics.pairs import image_pairs


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, size=40)
    return mos, np.round(mos + rng.normal(size=40), 1), rng.uniform(0.2, 1.0, size=40)


def test_krasula_as_a_loop_and_scikit_learn(table):
    mos, pred, std = table
    different, size, better, signed = [], [], [], []
    for i, j in permutations(range(40), 2):
        z = (mos[i] - mos[j]) / math.sqrt((std[i] ** 2 + std[j] ** 2) / 12)
        apart = 2 * stats.norm.sf(abs(z)) < 0.05
        different.append(apart)
        size.append(abs(pred[i] - pred[j]))
        if apart:
            better.append(z > 0)
            signed.append(pred[i] - pred[j])
    found = krasula(pred, mos, std, raters=12)
    assert found.auc_different == pytest.approx(roc_auc_score(different, size))
    assert found.auc_better == pytest.approx(roc_auc_score(better, signed))
    right = [0.5 if s == 0 else (s > 0) == b for s, b in zip(signed, better, strict=True)]
    assert found.correct == pytest.approx(np.mean(right))
    assert found.different == sum(different) / 2 and found.similar == 40 * 39 / 2 - found.different


def test_krasula_of_perfect_backward_and_random_scorers(table):
    mos, _, std = table
    perfect = krasula(mos, mos, std, raters=12)
    assert perfect.correct == perfect.auc_better == 1 and perfect.auc_different > 0.9
    backward = krasula(-mos, mos, std, raters=12)
    assert backward.correct == backward.auc_better == 0
    assert backward.auc_different == perfect.auc_different  # a difference is a difference
    noise = krasula(np.random.default_rng(1).normal(size=40), mos, std, raters=12)
    assert 0.35 < noise.auc_different < 0.65 and 0.35 < noise.auc_better < 0.65


def test_unknown_raters_call_fewer_pairs_different(table):
    mos, pred, std = table
    assert krasula(pred, mos, std) == krasula(pred, mos, std, raters=1)
    assert krasula(pred, mos, std).different < krasula(pred, mos, std, raters=12).different
    alone = krasula(pred, mos, np.full(40, 50.0))
    assert alone.different == 0 and math.isnan(alone.auc_different) and math.isnan(alone.correct)
    for wrong in ({"std": -std}, {"std": std, "raters": 0}):
        with pytest.raises(ValueError, match="std must not be negative"):
            krasula(pred, mos, **wrong)


def test_p_test_as_a_loop(table):
    mos, pred, _ = table
    wanted = [(i, j) if mos[i] > mos[j] else (j, i) for i, j in combinations(range(40), 2)]
    wanted = {(i, j) for i, j in wanted if mos[i] - mos[j] > 1}
    better, worse = discriminable_pairs(mos, margin=1.0)
    assert set(zip(better.tolist(), worse.tolist(), strict=True)) == wanted and better.size == len(wanted)
    assert p_test(pred, better, worse) == pytest.approx(np.mean([pred[i] > pred[j] for i, j in wanted]))
    assert p_test(np.zeros(40), better, worse) == 0  # a scorer that ties them all prefers none
    assert math.isnan(p_test(pred, [], []))


def test_judges_must_agree(table):
    mos, pred, _ = table
    one, both = discriminable_pairs(mos, 0.5)[0], discriminable_pairs([mos, pred], 0.5)[0]
    assert 0 < both.size < one.size
    assert discriminable_pairs([mos, -mos], 0.5)[0].size == 0
    with pytest.raises(ValueError, match="margin"):
        discriminable_pairs(mos, 0)


def test_many_images_are_sampled(table):
    first, second = image_pairs(3000, most=10_000, seed=1)
    assert first.size == second.size == 10_000 and (first != second).all()
    assert max(first.max(), second.max()) == 2999 and min(first.min(), second.min()) == 0
    assert np.array_equal(first, image_pairs(3000, most=10_000, seed=1)[0])
    rng = np.random.default_rng(2)
    mos = rng.uniform(1, 5, size=600)
    pred, std = mos + rng.normal(size=600), np.full(600, 0.8)
    sampled, whole = krasula(pred, mos, std, 10, most=40_000), krasula(pred, mos, std, 10)
    assert sampled.auc_different == pytest.approx(whole.auc_different, abs=0.02)
    assert sampled.auc_better == pytest.approx(whole.auc_better, abs=0.02)


def test_auc_is_mann_and_whitneys_statistic():
    from scipy.stats import mannwhitneyu

    from rali_zoo.metrics.pairs import _auc

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 20, 300).astype(float), rng.integers(-5, 15, 200).astype(float)
    assert _auc(a, b) == mannwhitneyu(a, b).statistic / (a.size * b.size)
