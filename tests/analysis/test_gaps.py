"""Gaps between data sets: near and far ones told apart, images of one content together."""

from __future__ import annotations

import numpy as np
import pytest

from rali_zoo.analysis import gaps
from rali_zoo.analysis.common import Settings
from rali_zoo.errors import ConfigError
from rali_zoo.metrics.domains import mmd, separability
from rali_zoo.text import create_text_encoder

SETTINGS = Settings(resamples=99)


def test_near_and_far():
    rng = np.random.default_rng(0)
    space = {"a": rng.normal(size=(60, 4)), "b": rng.normal(size=(60, 4)), "c": rng.normal(size=(60, 4)) + 2}
    contents = {ref: [f"{ref}{i}" for i in range(60)] for ref in space}
    found = gaps.domains({"space": space}, contents, SETTINGS)["space"]
    pairs = {(p["a"], p["b"]): p for p in found["pairs"]}
    near, far = pairs["a", "b"], pairs["a", "c"]
    assert abs(near["mmd2"]["value"]) < far["mmd2"]["value"] / 50 and near["mmd2"]["p"] > 0.05
    assert far["mmd2"]["low"] > 0 and far["mmd2"]["p"] == pytest.approx(0.01)
    assert near["classifier"]["low"] < 0.5 and far["classifier"]["low"] > 0.9
    told = separability([space["a"], space["c"]])
    assert far["classifier"]["value"] == pytest.approx(told.accuracy, abs=0.03)
    assert far["mmd2"]["value"] == pytest.approx(mmd(space["a"], space["c"], permutations=1).squared)
    assert all(0 <= p["cka"]["low"] <= p["cka"]["value"] <= p["cka"]["high"] <= 1 for p in pairs.values())
    assert found["classifier"]["chance"] == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match="no gap can be measured"):
        gaps.domains({"space": {k: x[:3] for k, x in space.items()}}, contents, SETTINGS)


def test_a_content_known_by_heart_is_no_gap():
    """Copies of a few images are told apart by heart where copies may stand on both sides of a fold."""
    rng = np.random.default_rng(0)
    space = {ref: np.repeat(rng.normal(size=(8, 30)), 6, axis=0) for ref in ("a", "b")}
    together = {ref: np.repeat([f"{ref}{i}" for i in range(8)], 6).tolist() for ref in space}
    apart = {ref: [f"{ref}{i}" for i in range(48)] for ref in space}
    found = [gaps._told_apart(list(space.values()), list(c.values()), SETTINGS) for c in (together, apart)]
    assert found[0]["value"] < 0.75 and found[1]["value"] == 1


def test_maps():
    rng = np.random.default_rng(0)
    space = {"a": rng.normal(size=(20, 5)), "b": rng.normal(size=(15, 5)) + 8}
    maps = gaps.flattened({"space": space}, 0)["space"]
    for flat in maps.values():
        assert {ref: x.shape for ref, x in flat.items()} == {"a": (20, 2), "b": (15, 2)}
        middle = np.linalg.norm(flat["a"].mean(0) - flat["b"].mean(0))
        assert middle > flat["a"].std() and np.isfinite(flat["a"]).all()


def test_one_data_set_has_no_gap(reasoner, frames, settings):
    one = dict(list(frames.items())[:1])
    with pytest.raises(ConfigError, match="two or more"):
        gaps.spaces(reasoner, {}, one, create_text_encoder("rali:hash"), settings)
