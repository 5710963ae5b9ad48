"""Cards: what they refuse, how they convert, and that they agree with the published score tables."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rali_zoo.data.registry import DATASETS, GENERIC, list_cards
from rali_zoo.errors import ConfigError, UnknownNameError

CARD = DATASETS["koniq10k"].CARD
SCORES = Path(__file__).resolve().parents[3] / "shared" / "data" / "score_tables"

#: data set -> its table of real names and scores, and the column that holds them
TABLES = {
    "agiqa3k": ("AGIQA-3K.csv", "mos_quality"),
    "csiq": ("CSIQ.txt", "score"),
    "kadid10k": ("KADID-10k.txt", "score"),
    "koniq10k": ("KonIQ-10k.txt", "score"),
    "live": ("LIVE.txt", "score"),
    "livec": ("LIVE_Challenge.txt", "score"),
    "pipal": ("PIPAL.txt", "score"),
    "spaq": ("SPAQ.txt", "score"),
    "tid2013": ("TID2013.txt", "score"),
}


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", " koniq", "blanks"),
        ("task", "nr", "Did you mean 'NR'"),
        ("domain", "synthtic", "Did you mean 'synthetic'"),
        ("n_images", 0, "positive"),
        ("mos_range", (5.0, 1.0), "higher_is_better"),
        ("mos_range", (1.0, float("nan")), "finite"),
        ("protocols", ("oficial",), "Did you mean 'official'"),
        ("protocols", ("official", "official"), "once"),
        ("default_protocol", "kfold", "one of its protocols"),
        ("domain", "synthetic", "synthetic=True"),
    ],
)
def test_a_card_refuses_nonsense(field: str, value: object, words: str) -> None:
    changes = {"protocols": ("official", "whole"), field: value}
    with pytest.raises(ConfigError, match=words) as caught:
        dataclasses.replace(CARD, **changes)  # type: ignore[arg-type]
    assert field in str(caught.value) or "synthetic" in str(caught.value)


def test_a_card_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CARD.mos_range = (0.0, 1.0)  # type: ignore[misc]


def test_known_conversions() -> None:
    assert DATASETS["spaq"].CARD.to_mos(50.0) == 3.0
    assert DATASETS["koniq10k"].CARD.to_mos(3.7) == pytest.approx(3.7)
    assert DATASETS["csiq"].CARD.to_mos(0.0) == 5.0  # a DMOS of nothing is the best there is
    assert DATASETS["csiq"].CARD.to_mos(1.0) == 1.0
    assert DATASETS["spaq"].CARD.to_std(25.0) == 1.0


@given(st.sampled_from(sorted(DATASETS)), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_mos_keeps_or_flips_the_order(name: str, shares: list[float]) -> None:
    card = DATASETS[name].CARD
    low, high = card.mos_range
    native = low + np.array(shares) * (high - low)
    mos = card.to_mos(native)
    assert ((mos >= 1 - 1e-9) & (mos <= 5 + 1e-9)).all()
    order = 1 if card.higher_is_better else -1
    a, b = np.argmin(native), np.argmax(native)
    assert order * (mos[b] - mos[a]) == pytest.approx(4 * (native[b] - native[a]) / (high - low))


def test_every_card_is_listed_under_its_name_and_says_where_to_get_it() -> None:
    cards = {card.name: card for card in list_cards()}
    assert set(DATASETS) < set(cards)
    for name in DATASETS:
        assert DATASETS[name].CARD is cards[name]
        assert cards[name].url.startswith("https://") and name in cards[name].layout and cards[name].citation
    assert {n for n, c in cards.items() if c.synthetic} == {
        "synthetic:lab",
        "synthetic:phone",
        "synthetic:wild",
    }


def test_unknown_names_give_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'koniq10k'"):
        DATASETS["koniq"]
    with pytest.raises(UnknownNameError, match="Known: csv, deqa, pyiqa, synthetic"):
        GENERIC["json"]


def test_raters_are_those_that_were_published() -> None:
    raters = {card.name: card.raters for card in list_cards() if card.raters is not None}
    assert raters == {
        **{"koniq10k": 120, "kadid10k": 30, "livec": 175, "agiqa3k": 21, "csiq": 5.8},
        **{"aadb": 5, "aigciqa2023": 28, "aigiqa20k": 21, "ava": 210, "lsvq": 35, "uhdiqa": 20},
    }


def test_listing_the_cards_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rali_zoo.data.registry import list_cards; list_cards()\n"
        "heavy = {'torch', 'pandas', 'numpy', 'scipy', 'sklearn', 'lightning'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not SCORES.is_dir(), reason="needs the published score tables in ../shared")
@pytest.mark.parametrize("name", sorted(TABLES))
def test_cards_agree_with_the_published_scores(name: str) -> None:
    card, (file, column) = DATASETS[name].CARD, TABLES[name]
    scores = pd.read_csv(SCORES / file)[column]
    # The table of LIVE Challenge lacks one of the 1,162 images that its readme counts.
    assert card.n_images == len(scores) + (name == "livec")
    low, high = card.mos_range
    assert scores.min() >= low and scores.max() <= high
    if name in ("pipal", "live"):  # no nominal scale: the extremes themselves
        assert scores.min() == pytest.approx(low, abs=1e-4) and scores.max() == pytest.approx(high, abs=1e-4)
