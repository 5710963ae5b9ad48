"""Protocols: contents stay together, every row has a place, the seed decides."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_fixtures import deqa_lists

from rali_zoo.data.registry import DATASETS
from rali_zoo.data.splits import SplitPlan, assign, parse_plan
from rali_zoo.errors import ConfigError, DatasetNotFoundError, ScoreTableError, UnknownNameError, UriError

KADID, KONIQ = DATASETS["kadid10k"].CARD, DATASETS["koniq10k"].CARD

#: sizes of the contents of a data set: 5 contents or more, of 1 to 6 images
SIZES = st.lists(st.integers(1, 6), min_size=5, max_size=25)


def frame_of(sizes: list[int]) -> pd.DataFrame:
    contents = [f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return pd.DataFrame({"id": [f"p{i}" for i in range(len(contents))], "split": "", "content": contents})


def split(frame: pd.DataFrame, **options: object) -> pd.Series:
    return assign(KADID, frame, SplitPlan(**options), Path("nowhere"))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_folds_are_disjoint_by_content_and_cover_every_row(sizes: list[int], folds: int, seed: int) -> None:
    frame = frame_of(sizes)
    tested = np.zeros(len(frame), dtype=int)
    for fold in range(folds):
        place = split(frame, protocol="kfold", folds=folds, fold=fold, seed=seed)
        assert set(place) <= {"train", "val", "test"}
        assert (place.groupby(frame["content"]).nunique() == 1).all()
        assert {"train", "test"} <= set(place)
        tested += (place == "test").to_numpy()
    assert (tested == 1).all()


@settings(deadline=None, max_examples=40)
@given(
    SIZES, st.sampled_from(["kfold", "random"]), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False)
)
def test_a_split_is_decided_by_contents_and_seed_not_by_order(sizes, protocol, seed, shuffler) -> None:
    frame = frame_of(sizes)
    once = split(frame, protocol=protocol, seed=seed)
    pd.testing.assert_series_equal(once, split(frame, protocol=protocol, seed=seed))
    order = list(range(len(frame)))
    shuffler.shuffle(order)
    shuffled = frame.iloc[order].reset_index(drop=True)
    again = split(shuffled, protocol=protocol, seed=seed)
    by_content = dict(zip(frame["content"], once, strict=True))
    assert [by_content[c] for c in shuffled["content"]] == again.tolist()


@settings(deadline=None, max_examples=40)
@given(SIZES, st.floats(0.4, 0.95), st.floats(0.01, 0.9), st.integers(0, 1000))
def test_random_takes_the_share_of_contents_it_was_told(sizes, ratio, val_fraction, seed) -> None:
    frame = frame_of(sizes)
    place = split(frame, protocol="random", ratio=ratio, val_fraction=val_fraction, seed=seed)
    n = frame["content"].nunique()
    parts = {role: frame.loc[place == role, "content"].nunique() for role in ("train", "val", "test")}
    assert sum(parts.values()) == n and min(parts.values()) >= 1
    assert abs(parts["test"] - (1 - ratio) * n) <= 1
    assert abs(parts["val"] - val_fraction * (n - parts["test"])) <= 1


def test_another_seed_gives_another_split() -> None:
    frame = frame_of([1] * 40)
    seen = {tuple(split(frame, protocol="random", seed=s)) for s in range(5)}
    assert len(seen) == 5


def test_whole_tests_everything_and_official_keeps_what_was_published() -> None:
    frame = frame_of([2] * 10)
    assert set(split(frame, protocol="whole")) == {"test"}
    frame["split"] = ["train"] * 14 + ["val"] * 2 + ["test"] * 4
    assert split(frame, protocol="official").tolist() == frame["split"].tolist()


def test_validation_is_carved_only_where_none_is_published() -> None:
    frame = frame_of([2] * 10)
    frame["split"] = ["train"] * 16 + ["test"] * 4
    place = split(frame, protocol="official", val_fraction=0.25)
    assert place.value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
    assert (place[frame["split"] == "test"] == "test").all()
    assert "val" not in set(split(frame, protocol="official", val_fraction=0))


def test_too_few_contents_and_missing_splits_are_said() -> None:
    with pytest.raises(ConfigError, match="5 folds need as many contents; there are 3"):
        split(frame_of([4, 4, 4]), protocol="kfold")
    with pytest.raises(ConfigError, match="two contents or more; there is 1"):
        split(frame_of([9]), protocol="random")
    with pytest.raises(ConfigError, match="20 of 20 rows have no published split") as caught:
        assign(KONIQ, frame_of([1] * 20), SplitPlan("official"), Path("nowhere"))
    assert "?protocol=deqa" in str(caught.value) and "koniq10k_distributions_sets.csv" in str(caught.value)


# ---- DeQA's lists ---------------------------------------------------------------------------------------


def test_deqa_lists_place_their_rows_and_leave_out_the_others(tmp_path: Path) -> None:
    frame = frame_of([1] * 10)
    deqa_lists(
        tmp_path / "metas", [f"SET/images/p{i}" for i in range(6)], ["SET/images/p6", "SET/images/p7"], "set"
    )
    place = assign(KADID, frame, SplitPlan("deqa", val_fraction=0), tmp_path)
    assert place.tolist() == ["train"] * 6 + ["test"] * 2 + ["", ""]
    elsewhere = SplitPlan("deqa", metas=str(tmp_path / "metas"), val_fraction=0.5)
    carved = assign(KADID, frame, elsewhere, Path("nowhere"))
    assert carved.value_counts().to_dict() == {"train": 3, "val": 3, "test": 2, "": 2}


def test_deqa_lists_that_are_absent_or_disagree(tmp_path: Path) -> None:
    frame = frame_of([1] * 5)
    with pytest.raises(DatasetNotFoundError, match=r"metas.* does not exist") as caught:
        assign(KADID, frame, SplitPlan("deqa"), tmp_path)
    assert "Data-DeQA-Score" in str(caught.value)
    deqa_lists(tmp_path / "a", ["p0", "p1"], ["p9"], "set")
    with pytest.raises(ScoreTableError, match="lists images that kadid10k does not have: p9"):
        assign(KADID, frame, SplitPlan("deqa", metas=str(tmp_path / "a")), tmp_path)
    deqa_lists(tmp_path / "b", ["p0", "p1"], ["p1"], "set")
    with pytest.raises(ScoreTableError, match="for training and for testing: p1"):
        assign(KADID, frame, SplitPlan("deqa", metas=str(tmp_path / "b")), tmp_path)
    (tmp_path / "b" / "train_set_new.json").write_text("[]")
    with pytest.raises(ScoreTableError, match="several train lists: train_set.json, train_set_new.json"):
        assign(KADID, frame, SplitPlan("deqa", metas=str(tmp_path / "b")), tmp_path)
    (tmp_path / "a" / "test_set.json").unlink()
    with pytest.raises(DatasetNotFoundError, match="one of the two lists"):
        assign(KADID, frame, SplitPlan("deqa", metas=str(tmp_path / "a")), tmp_path)


# ---- plans ----------------------------------------------------------------------------------------------


def test_a_plan_takes_the_cards_default_and_its_own_options() -> None:
    assert parse_plan("koniq10k", {}, KONIQ) == SplitPlan("official")
    options = {"protocol": "kfold", "folds": "4", "fold": "3", "seed": "7", "val_fraction": "0"}
    wanted = SplitPlan("kfold", folds=4, fold=3, seed=7, val_fraction=0.0)
    assert parse_plan("kadid10k", options, KADID) == wanted
    assert [f.name for f in dataclasses.fields(SplitPlan)][0] == "protocol"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"protocol": "kfolds"}, UnknownNameError, "Did you mean 'kfold'"),
        ({"protocol": "official"}, UnknownNameError, "protocol of kadid10k 'official'"),
        ({"fold": "1"}, UriError, "means nothing to protocol 'whole'; it belongs to kfold"),
        ({"protocol": "kfold", "fold": "5"}, UriError, "give 0 to 4"),
        ({"protocol": "kfold", "folds": "1"}, UriError, "give 2 or more"),
        ({"protocol": "kfold", "fold": "one"}, UriError, "is no whole number"),
        ({"protocol": "random", "ratio": "1.0"}, UriError, "between 0 and 1"),
        ({"protocol": "random", "ratio": "most"}, UriError, "is no number"),
        ({"protocol": "random", "val_fraction": "1"}, UriError, "share in"),
        ({"protocol": "random", "seed": "-1"}, UriError, "seed=-1"),
    ],
)
def test_a_plan_that_cannot_be(options: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_plan("kadid10k", options, KADID)
