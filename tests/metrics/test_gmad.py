"""gMAD finds the image on which an attacked scorer is wrong."""

import math

import numpy as np
import pytest

from rali_zoo.metrics import gmad_pairs


def test_pairs_are_the_extremes_of_their_windows():
    rng = np.random.default_rng(0)
    attacker, defender = rng.normal(size=200), rng.normal(size=200)
    attacker[17] = math.nan
    pairs = gmad_pairs(attacker, defender, levels=4, share=0.1)
    assert [p.level for p in pairs] == sorted(p.level for p in pairs) and len(pairs) == 4
    scored = np.delete(np.arange(200), 17)
    order = scored[np.argsort(defender[scored])]
    for k, pair in enumerate(pairs):
        start = round((k + 0.5) / 4 * 199 - 10)
        window = order[start : start + 20]
        assert attacker[pair.better] == attacker[window].max()
        assert attacker[pair.worse] == attacker[window].min()
        gap = (attacker[pair.better] - attacker[pair.worse]) / attacker[scored].std()
        assert pair.attacker_gap == pytest.approx(gap) and pair.attacker_gap > 3 * pair.defender_gap


def test_a_planted_blind_spot_is_found():
    """The defender does not see blur: at one of its levels the attacker picks the blurred image."""
    rng = np.random.default_rng(1)
    quality = rng.uniform(size=100)
    blind = quality.copy()
    quality[37] -= 5.0
    worst = [p.worse for p in gmad_pairs(quality, blind, levels=5, share=0.2)]
    assert 37 in worst
    assert all(p.attacker_gap < 1 for p in gmad_pairs(blind, quality, levels=5, share=0.05))


def test_bad_settings():
    x = np.arange(30.0)
    for settings, message in (
        ({"levels": 5, "share": 0.3}, "share"),
        ({"levels": 0}, "at least one level"),
        ({"share": 0.01}, "under two"),
    ):
        with pytest.raises(ValueError, match=message):
            gmad_pairs(x, x, **settings)
    with pytest.raises(ValueError, match="same score"):
        gmad_pairs(np.ones(30), x, share=0.1)
    with pytest.raises(ValueError, match="same images"):
        gmad_pairs(x, x[:-1])
