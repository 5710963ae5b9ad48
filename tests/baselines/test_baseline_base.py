"""Any function as a scorer: signs, errors, references, and networks that hide or are put into training."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rali_zoo.baselines.base import Facts, Frozen, MetricScorer, networks_in, number
from rali_zoo.errors import ConfigError

GREY = [Image.new("RGB", (8, 6), (v, v, v)) for v in (51, 102, 204)]


def scorer(compute, networks=(), **facts):
    known = {"needs_reference": False, "lower_better": False} | facts
    return MetricScorer(Facts("toy:x", "toy-1", "MIT", **known), compute, networks=networks)


def brightness(image, _):
    assert image.shape == (1, 3, 6, 8) and image.dtype == torch.float32
    return image.mean()


def distance(image, reference):
    return (image - reference).abs().mean()


def test_more_is_better_whatever_the_metric_thinks():
    up, down = scorer(brightness), scorer(brightness, lower_better=True, value_range=(0.0, 100.0))
    assert [s.score for s in up.score(GREY)] == pytest.approx([0.2, 0.4, 0.8])
    assert [s.score for s in down.score(GREY)] == pytest.approx([-0.2, -0.4, -0.8])
    assert up.score_range is None and down.score_range == (-100.0, 0.0)
    assert math.copysign(1, down.score_range[1]) == 1
    assert math.copysign(1, down.score(Image.new("RGB", (8, 6)))[0].score) == 1
    assert all(s.native_scale for s in (up, down))
    assert not scorer(brightness, value_range=(1.0, 5.0)).native_scale
    assert scorer(brightness, lower_better=True, value_range=(1.0, 5.0)).native_scale


def test_an_image_without_a_score_is_a_row_with_its_reason(tmp_path):
    def moody(image, _):
        level = round(float(image.mean()), 1)
        if level == 0.2:
            return torch.tensor(float("nan"))
        if level == 0.4:
            raise RuntimeError("no way\nat all")
        return torch.full((1, 1), level) if level == 0.8 else [level, level]

    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    white = Image.new("RGB", (8, 6), (255, 255, 255))
    found = scorer(moody).score([*GREY, broken, white, str(tmp_path / "none.png")])
    assert [s.score for s in found[2:3]] == pytest.approx([0.8])
    assert [s.score is None for s in found] == [s.error is not None for s in found]
    errors = [s.error or "" for s in found]
    assert errors[0] == "the metric gave nan" and errors[1] == "RuntimeError: no way"
    assert "no known image format" in errors[3] and "2 numbers" in errors[4] and "no such file" in errors[5]
    assert [s.path for s in found] == ["[0]", "[1]", "[2]", str(broken), "[4]", str(tmp_path / "none.png")]
    assert {s.model for s in found} == {"toy:x"}


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite_is_no_score(value):
    (one,) = scorer(lambda *_: value, lower_better=True).score(GREY[0])
    assert one.score is None and one.error == f"the metric gave {value}"


def test_images_are_decoded_ahead_and_stay_in_order(tmp_path):
    paths, done = [], []
    for i in range(9):
        Image.new("RGB", (8, 6), (i, i, i)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    for batch_size, workers in ((1, 1), (4, 3), (100, 2)):
        found = scorer(brightness).score(paths, batch_size, done.append, workers)
        assert [round(s.score * 255) for s in found] == list(range(9))
    assert done == [*range(1, 10)] * 3
    assert scorer(brightness).score([]) == []


def test_references_are_compared_one_by_one(tmp_path):
    full = scorer(distance, needs_reference=True, lower_better=True)
    found = full.score(GREY, references=[GREY[0], "", Image.new("RGB", (9, 6))])
    assert found[0].score == 0 and found[1].error == "no reference image to compare with"
    assert found[2].error == "its reference is 9x6, the image 8x6"
    (lost,) = full.score(GREY[:1], references=[tmp_path / "none.png"])
    assert lost.error.startswith("its reference no such file")
    with pytest.raises(ConfigError, match="give references, one an image"):
        full.score(GREY)
    with pytest.raises(ConfigError, match="1 references for 3 images"):
        full.score(GREY, references=GREY[0])
    assert [s.error for s in scorer(brightness).score(GREY, references=GREY[:1])] == [None] * 3


class Moody(nn.Module):
    """Gives other scores when it is trained: batch statistics and dropout, one of them where nobody looks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.hidden = [nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.hidden[0](self.norm(image)).mean()


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def test_training_around_a_metric_leaves_its_scores_alone():
    torch.manual_seed(0)
    frozen = Frozen(Moody())
    ours = scorer(lambda image, _: frozen(image), networks_in(frozen))
    before = [s.score for s in ours.score([noise(0), noise(1)])]
    trainee = nn.Module()
    trainee.metric, trainee.list = frozen, nn.ModuleList(ours.modules())
    trainee.train()
    assert trainee.training and not any(m.training for m in frozen.modules())
    frozen.network.hidden[0].train()
    assert [s.score for s in ours.score([noise(0), noise(1)])] == before
    assert not any(p.requires_grad for p in frozen.parameters())


def test_hidden_networks_are_found_and_change_the_revision():
    torch.manual_seed(0)
    frozen = Frozen(Moody())
    found = networks_in(frozen)
    assert len(found) == 2 and found[0] is frozen and found[1] is frozen.network.hidden[0]
    ours = scorer(lambda p, _: frozen(p), found)
    assert sum(p.numel() for m in ours.modules() for p in m.parameters()) == 6 + 12
    with torch.no_grad():
        frozen.network.hidden[0][0].bias += 1
    changed = scorer(lambda p, _: frozen(p), found).revision
    assert ours.revision.startswith("toy-1+") and changed != ours.revision
    assert scorer(brightness).revision == "toy-1" and scorer(brightness).modules() == []


def test_networks_are_found_wherever_they_are_kept():
    class Helper:
        def __init__(self, net):
            self.net = net

        def call(self):
            return self.net

    nets = [nn.Linear(1, 1) for _ in range(5)]
    outer = nn.Sequential(nets[4])
    outer.kept = {"a": [nets[0]], "b": (Helper(nets[1]).call, functools.partial(nets[2], 1))}
    outer.helper = Helper([Helper(nets[3]), nets[0], nets[4]])
    outer.itself = outer.helper.again = outer
    found = networks_in(outer)
    assert {id(m) for m in found} == {id(m) for m in (outer, *nets[:4])} and len(found) == 5
    assert networks_in(lambda x: x) == networks_in(3) == []


def test_a_metric_is_no_model_of_ours():
    with pytest.raises(ConfigError, match="'toy:x' only gives scores"):
        _ = scorer(brightness).network


def test_number():
    assert number(np.float64(2)) == number(torch.tensor([[2.0]])) == number([2]) == 2.0
    with pytest.raises(ValueError, match="0 numbers"):
        number([])
