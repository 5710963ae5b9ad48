"""Routing curves where the answer is known, and both commands on scorers made for it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from rali_zoo.analysis.routing import route, routing_curve
from rali_zoo.analysis.uncertainty import coverage_report
from rali_zoo.cli.main import main
from rali_zoo.errors import ConfigError
from rali_zoo.metrics import srcc
from rali_zoo.types import Score


@pytest.fixture(scope="module")
def known():
    """A third of the images is hard for the cheap scorer, which knows it; the expensive one is exact."""
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, 300)
    sd = np.where(np.arange(300) % 3 == 0, 1.5, 0.05)
    return mos, mos + rng.normal(0, 1, 300) * sd, mos + 0.0, sd


def test_a_third_is_enough_where_the_uncertainty_is_right(known):
    mos, cheap, expensive, sd = known
    none, third, all_ = routing_curve(mos, cheap, expensive, sd, (0.0, 1 / 3, 1.0), resamples=200)
    assert none.srcc == pytest.approx(srcc(cheap, mos)) and abs(none.gain) < 1e-9 and np.isinf(none.threshold)
    assert all_.srcc == pytest.approx(1.0) and all_.gain == pytest.approx(0.0, abs=1e-12)
    assert third.srcc > 0.998 and third.threshold == 1.5
    assert third.gain_low > 0.01 and third.random < 0.95
    assert third.low <= third.srcc <= third.high
    assert third.oracle >= third.srcc - 1e-9


def test_an_uncertainty_that_knows_nothing_gains_nothing(known):
    mos, cheap, expensive, _ = known
    noise = np.random.default_rng(1).random(300)
    (point,) = routing_curve(mos, cheap, expensive, noise, (0.3,), resamples=200)
    assert point.gain_low < 0 < point.gain_high


def test_images_are_counted_by_content(known):
    mos, cheap, expensive, sd = known
    contents = [str(i // 30) for i in range(300)]
    one = routing_curve(mos, cheap, expensive, sd, (0.1,), resamples=200)[0]
    ten = routing_curve(mos, cheap, expensive, sd, (0.1,), contents, resamples=200)[0]
    assert one.srcc == ten.srcc and ten.high - ten.low != one.high - one.low


@pytest.mark.parametrize("change", ["share", "nan", "length"])
def test_what_cannot_be_routed_is_refused(known, change):
    mos, cheap, expensive, sd = (v.copy() for v in known)
    shares = (1.5,) if change == "share" else (0.5,)
    if change == "nan":
        cheap[3] = np.nan
    if change == "length":
        sd = sd[:-1]
    with pytest.raises(ValueError):
        routing_curve(mos, cheap, expensive, sd, shares)


class Told:
    """A scorer that looks its answers up."""

    revision, training_sets = "1", ()

    def __init__(self, name, score, std=None):
        self.name, self._score, self._std = name, score, std

    def score(self, images, batch_size=16, progress=None):
        return [
            Score(self._score.get(p), self._std and self._std[p], None if p in self._score else "failed", p)
            for p in images
        ]


@pytest.fixture
def rows(known):
    mos, cheap, expensive, sd = known
    paths = [f"{i}.png" for i in range(300)]
    frame = pd.DataFrame({"path": paths, "mos": mos, "content": paths})
    first = Told("cheap", dict(zip(paths, cheap, strict=True)), dict(zip(paths, sd, strict=True)))
    # On a scale of its own: without a line to the MOS a mixture would be nonsense.
    other = Told("expensive", dict(zip(paths, 200 * expensive - 37, strict=True)))
    return frame[:100], frame[100:], first, other


def test_scorers_of_different_scales_are_brought_to_one(rows):
    val, test, cheap, expensive = rows
    del expensive._score[test["path"].iloc[0]]
    found = route(cheap, expensive, val, test, shares=(0.0, 0.34, 1.0))
    assert (found["n"], found["left_out"]) == (199, 1)
    assert found["points"][1].srcc > 0.99 and found["points"][2].srcc == pytest.approx(1.0)
    assert found["error_srcc"] > 0.4 and set(found["seconds"]) == {"cheap", "expensive"}


def test_disagreement_stands_in_for_a_std(rows):
    val, test, cheap, expensive = rows
    cheap._std = None
    with pytest.raises(ConfigError, match="--second"):
        route(cheap, expensive, val, test)
    rng = np.random.default_rng(2)
    mos = pd.concat([val, test])
    second = Told("second", {p: m + rng.normal(0, 0.1) for p, m in zip(mos["path"], mos["mos"], strict=True)})
    found = route(cheap, expensive, val, test, second, shares=(0.3,))
    assert found["uncertainty"].startswith("disagreement") and found["points"][0].gain_low > 0


def test_a_scorer_that_runs_backwards_is_refused(rows):
    val, test, cheap, _ = rows
    cheap._score = {p: -v for p, v in cheap._score.items()}
    with pytest.raises(ConfigError, match="runs against the MOS"):
        route(cheap, cheap, val, test)


def test_coverage_of_a_right_and_of_a_boastful_std(known):
    mos, cheap, _, sd = known
    for factor in (1.0, 0.3):
        std = factor * sd
        found = coverage_report(mos[:150], cheap[:150], std[:150], mos[150:], cheap[150:], std[150:])
        for level, kinds in found["levels"].items():
            assert kinds["conformal"].coverage == pytest.approx(float(level), abs=0.14)
            assert kinds["conformal"].width < kinds["constant"].width or level == "0.5"
        told = found["levels"]["0.95"]["normal"].coverage
        assert told > 0.9 if factor == 1.0 else told < 0.7
        assert found["error_srcc_low"] > 0.3


@pytest.fixture
def graded(tmp_path, photo):
    """Sixty images in ten degrees of blur, as a csv data set."""
    lines = []
    for i in range(60):
        image = Image.fromarray(photo(160, 160, seed=i % 7))
        image.filter(ImageFilter.GaussianBlur(0.4 * (i % 10))).save(tmp_path / f"{i}.png")
        split = "val" if i % 3 == 0 else "test"
        lines.append(f"{i}.png,{4.6 - 0.3 * (i % 10):.3f},{split}")
    (tmp_path / "scores.csv").write_text("image,mos,split\n" + "\n".join(lines) + "\n")
    return f"csv:{tmp_path / 'scores.csv'}?mos_range=1,5"


def test_the_commands_write_what_they_show(graded, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = ["--data", graded, "--output", str(tmp_path / "route.json"), "--shares=[0,0.5,1]"]
    words += ["--cheap", "rali-tiny-synthetic", "--expensive", "regression-tiny-synthetic"]
    assert main(["route", *words, "--plot", str(tmp_path / "route.svg")]) == 0
    found = json.loads((tmp_path / "route.json").read_text())
    assert [p["share"] for p in found["points"]] == [0, 0.5, 1] and found["n"] == 40
    assert found["points"][0]["threshold"] is None and found["versions"]["torch"]
    assert "<svg" in (tmp_path / "route.svg").read_text()
    assert "SRCC of uncertainty and error" in capsys.readouterr().out
    words = ["--data", graded, "--output", str(tmp_path / "u.json"), "--model"]
    assert main(["uncertainty", *words, "rali-tiny-synthetic"]) == 0
    report = json.loads((tmp_path / "u.json").read_text())
    assert (report["n_val"], report["n"], set(report["levels"])) == (20, 40, {"0.5", "0.8", "0.95"})
    assert main(["uncertainty", *words, "regression-tiny-synthetic"]) == 1
    assert "gives no std" in capsys.readouterr().err
    assert main(["route", "--cheap", "a", "--expensive", "b", "--data", graded, "--shares=[2]"]) == 1
