"""The response to degradations: planted scores, ties, failures, chains with gaps, and intervals over contents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rali_zoo.data.samplers import chains_of
from rali_zoo.metrics import degradation_response


def frame(contents: int = 4, kinds: tuple[str, ...] = ("blur", "jpeg"), levels: int = 5) -> pd.DataFrame:
    rows = [(f"c{c}", "pristine", 0) for c in range(contents)]
    rows += [(f"c{c}", k, v) for c in range(contents) for k in kinds for v in range(1, levels + 1)]
    return pd.DataFrame(rows, columns=["content", "distortion", "level"])


def respond(table: pd.DataFrame, scores: object, **more: object):
    columns = [table[name].tolist() for name in ("content", "distortion", "level")]
    return degradation_response(scores, chains_of(table), *columns, **more)


def test_a_scorer_that_follows_every_level_has_one_and_its_opposite_zero() -> None:
    table = frame()
    right, wrong = respond(table, -table["level"]), respond(table, table["level"])
    assert (right.ordered.value, right.ordered.n) == (1.0, 4 * 2 * 4)
    assert (right.pristine_first.value, right.pristine_first.n) == (1.0, 8)
    assert (wrong.ordered.value, wrong.pristine_first.value) == (0.0, 0.0)
    assert right.contents == 4


def test_ties_count_half_in_pairs_and_nothing_in_chains() -> None:
    found = respond(frame(), np.zeros(44))
    assert (found.ordered.value, found.pristine_first.value) == (0.5, 0.0)


def test_an_image_without_a_score_orders_nothing() -> None:
    table = frame(contents=2, kinds=("blur",))
    scores = -table["level"].to_numpy(float)
    scores[(table["content"] == "c0") & (table["level"] == 3)] = np.nan  # in two of its four pairs
    found = respond(table, scores)
    assert found.ordered.value == pytest.approx(6 / 8)
    assert found.pristine_first.value == 1.0  # level 3 is not a strong one
    scores[0] = np.inf
    assert respond(table, scores).pristine_first.value == 0.5


def test_pairs_are_neighbouring_levels_and_pristine_is_in_none() -> None:
    table = frame(contents=2, kinds=("blur",))
    table = table[table["level"] != 3].reset_index(drop=True)  # 1-2 and 4-5 remain
    found = respond(table, -table["level"])
    assert found.ordered.n == 4
    alone = table[table["level"] > 0].reset_index(drop=True)
    without = respond(alone, -alone["level"])
    assert without.ordered.n == 4
    assert without.pristine_first.n == 0 and np.isnan(without.pristine_first.value)


def test_by_distortion_and_family() -> None:
    table = frame(kinds=("gaussian", "lens", "jpeg"))
    scores = np.where(table["distortion"] == "lens", table["level"], -table["level"])
    found = respond(table, scores, families={"blur": ("gaussian", "lens"), "noise": ("white",)})
    assert {k: s.value for k, s in found.by_distortion.items()} == {"gaussian": 1.0, "jpeg": 1.0, "lens": 0.0}
    assert found.by_family["blur"].value == 0.5 and found.by_family["blur"].n == 32
    assert set(found.by_family) == {"blur"}


def test_the_interval_draws_contents_and_not_pairs() -> None:
    table = frame(contents=12, kinds=tuple("abcdefgh"))
    half = table["content"].isin([f"c{i}" for i in range(6)])
    by_content = respond(table, np.where(half, -table["level"], table["level"]))
    by_kind = respond(
        table, np.where(table["distortion"].isin(list("abcd")), -table["level"], table["level"])
    )
    assert by_content.ordered.value == by_kind.ordered.value == 0.5
    # Contents that behave alike all agree: nothing varies between resamples of them.
    assert by_kind.ordered.low == by_kind.ordered.high == 0.5
    assert by_content.ordered.low < 0.3 < 0.7 < by_content.ordered.high
    assert respond(table, -table["level"], seed=1) == respond(table, -table["level"], seed=1)
    one = respond(frame(contents=1), -frame(contents=1)["level"])
    assert one.ordered.value == 1.0 and np.isnan(one.ordered.low)


def test_what_does_not_pair_up_and_what_has_no_order() -> None:
    table = frame()
    with pytest.raises(ValueError, match="pair up row by row"):
        respond(table, np.zeros(3))
    with pytest.raises(ValueError, match="no two neighbouring levels"):
        respond(frame(levels=1), np.zeros(12))
