"""No answer to its failed images would have given a scorer less than ``srcc_failures_worst``."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rali_zoo.metrics import fill_worst, srcc, srcc_failures_worst

rows = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 4), st.booleans()), min_size=4, max_size=7
).filter(lambda rows: 1 <= sum(r[2] for r in rows) <= 2)


@settings(max_examples=25, deadline=None)
@given(rows)
def test_every_way_to_answer_is_at_least_as_good(rows):
    mos, pred, lost = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    failed = lost.astype(bool)
    pred[failed] = math.nan
    worst = srcc_failures_worst(pred, mos)
    if math.isnan(worst):
        return
    least = 1.0
    for answers in itertools.product(np.arange(-1, 5.1, 0.5), repeat=int(failed.sum())):
        filled = pred.copy()
        filled[failed] = answers
        least = min(least, srcc(filled, mos))
    if worst >= 0:
        assert worst <= least + 1e-12
    distinct = fill_worst(pred, mos)
    assert np.unique(distinct[failed]).size == failed.sum()
    assert srcc(distinct[~failed], mos[~failed]) == pytest.approx(srcc(pred[~failed], mos[~failed]))


def test_failing_on_bad_images_does_not_pay():
    """With the lowest score, the ten worst images would be ranked rightly; a failure must not gain."""
    rng = np.random.default_rng(0)
    mos = np.sort(rng.normal(size=100))
    honest = mos + 0.5 * rng.normal(size=100)
    refusing = honest.copy()
    refusing[:10] = math.nan
    lowest = np.where(np.isnan(refusing), honest.min() - 1, honest)
    assert srcc(lowest, mos) > srcc(honest, mos) > srcc_failures_worst(refusing, mos)
    assert srcc_failures_worst(honest, mos) == srcc(honest, mos)


def test_edges():
    assert math.isnan(srcc_failures_worst([math.nan, math.inf], [1, 2]))
    assert math.isnan(srcc_failures_worst([1, 1, math.nan], [1, 2, 3]))
    with pytest.raises(ValueError, match="pair up"):
        srcc_failures_worst([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="none of 2"):
        fill_worst([math.nan, math.nan], [1, 2])
