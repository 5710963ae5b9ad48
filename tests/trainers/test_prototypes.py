import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from rali_zoo.errors import ConfigError
from rali_zoo.trainers.prototypes import bucket_centres, fit_projection, fit_prototypes


def test_projection_is_sklearns_pca():
    x = np.random.default_rng(0).normal(size=(60, 12)) * np.arange(1, 13)
    ours = fit_projection(x, 5)(x)
    theirs = PCA(5, random_state=0).fit_transform(x)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8)


def test_standardised_projection_divides_first():
    x = np.random.default_rng(0).normal(size=(60, 6)) * np.arange(1, 7)
    p = fit_projection(x, 3, standardise=True)
    np.testing.assert_allclose(p(x), ((x - x.mean(0)) / x.std(0)) @ PCA(3).fit(x).components_.T, atol=1e-8)


def test_no_pca_keeps_the_space():
    x = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_array_equal(fit_projection(x, None)(x), x)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 300))
def test_centres_are_shared_out_without_empty_clusters(members, k):
    members = np.array(members)
    centres = bucket_centres(members, k)
    assert (centres <= members).all()
    assert ((centres > 0) == (members > 0)).all()
    occupied = int((members > 0).sum())
    assert centres.sum() == max(occupied, min(k, members.sum()))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 50), st.integers(0, 5), st.booleans())
def test_prototypes_are_never_nan_nor_empty(n, buckets, k, seed, duplicates):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    if duplicates:  # fewer distinct rows than clusters asked for made the first prototypes NaN
        x = x[rng.integers(0, max(1, n // 4), n)]
    mos = rng.uniform(1, 5, n)
    k = max(k, buckets)
    found = fit_prototypes(x, mos, buckets, k, seed)
    assert np.isfinite(found.vectors).all()
    assert (found.counts > 0).all() and found.counts.sum() == n
    assert len(found.scores) <= k
    assert (found.scores >= mos.min() - 1e-9).all() and (found.scores <= mos.max() + 1e-9).all()
    # Centres are means of a partition, so their weighted mean is the mean of the data.
    np.testing.assert_allclose(np.average(found.scores, weights=found.counts), mos.mean())
    np.testing.assert_allclose(np.average(found.vectors, axis=0, weights=found.counts), x.mean(0), atol=1e-9)


def test_paper_setting_puts_most_buckets_at_one_centre():
    rng = np.random.default_rng(0)
    found = fit_prototypes(rng.normal(size=(3000, 8)), rng.uniform(1, 5, 3000), 240, 250)
    assert len(found.scores) == 250


@pytest.mark.parametrize("mos", [np.array([1.0, np.nan]), np.array([0.0, 2.0]), np.array([1.0])])
def test_bad_scores_are_refused(mos):
    with pytest.raises(ConfigError):
        fit_prototypes(np.ones((2, 2)), mos, 2, 2)


def test_nan_embeddings_are_refused():
    with pytest.raises(ConfigError, match="learning rate"):
        fit_projection(np.full((3, 2), np.nan), 1)


@pytest.mark.parametrize(("buckets", "k"), [(5, 4), (0, 4)])
def test_buckets_that_cannot_all_have_a_prototype_are_refused(buckets, k):
    with pytest.raises(ConfigError, match=f"{buckets} score buckets each need a prototype"):
        fit_prototypes(np.random.default_rng(0).normal(size=(9, 2)), np.linspace(1, 5, 9), buckets, k)
