"""Gradients from the score to the pixels, and pixels cut in torch as they are cut in Pillow."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_toys import random_images
from PIL import Image

import rali_zoo
from rali_zoo.errors import ConfigError
from rali_zoo.export.tensors import cut, exact_scores
from rali_zoo.types import Preprocess
from rali_zoo.views import View

VIEWS = {
    "squash": (View(), Preprocess((24, 40))),
    "bilinear": (View(), Preprocess((24, 40), interpolation="bilinear")),
    "center_crop": (View("center_crop", size=30), Preprocess((24, 24), crop_rule="round")),
    "odd crop": (View(), Preprocess((31, 31), resize="center_crop", crop_rule="floor")),
    "native": (View(), Preprocess((24, 24), resize="none")),
    "grid": (View("grid", size=24, crops=4), Preprocess((50, 50))),
    "enlarged grid": (View("grid", size=64, crops=2), Preprocess((50, 50))),
    "multi": (View("multi", size=28, crops=3), Preprocess((50, 50))),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("size", [(45, 70), (61, 50)])
def test_images_are_cut_as_pillow_cuts_them(name, size, photo):
    view, rules = VIEWS[name]
    image = photo(*size, seed=3)
    expected = view(Image.fromarray(image), rules)
    found = cut(torch.from_numpy(image).permute(2, 0, 1)[None] / 255, view, rules)[0]
    assert found.shape == expected.shape
    # Pillow rounds to 8 bits after each of its two passes.
    assert (found - expected).abs().max() <= 2 / 255
    assert (found - expected).abs().mean() <= 0.5 / 255
    assert (found.roll(1, -1) - expected).abs().mean() > 2 / 255  # else any place would do


@pytest.mark.parametrize("name", VIEWS)
def test_the_cut_has_the_gradient_of_its_differences(name):
    """Inside (0, 1), where nothing is clamped; in float64, by torch's own check."""
    view, rules = VIEWS[name]
    small = replace(rules, size=(5, 6))
    view = View(view.kind, None if view.size is None else 5, view.crops)
    image = (0.4 + 0.2 * torch.rand(1, 3, 7, 9, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cut(x, view, small), image)


def test_the_score_has_the_gradient_of_its_differences(clip):
    loss = rali_zoo.quality_loss(clip, reduction="sum").double()
    image = (0.2 + 0.6 * random_images(2, 40, 50)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(image), image)
    assert gradient.abs().max() > 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        step = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            numeric = (loss(image + 1e-5 * step) - loss(image - 1e-5 * step)) / 2e-5
        assert float((gradient * step).sum()) == pytest.approx(float(numeric), rel=1e-4, abs=1e-9)


def test_the_gradient_leads_to_better_scores(tiny):
    loss = rali_zoo.quality_loss(tiny)
    image = random_images(1, 160, 160, seed=2) * 0.8 + 0.1
    image = (image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    before, values = float(loss(image)), image.clone().requires_grad_()
    optimiser = torch.optim.Adam([values], lr=2e-3)
    for _ in range(8):
        optimiser.zero_grad()
        loss(values).backward()
        optimiser.step()
    assert float(loss(values).detach()) < before - 0.01


def test_values_are_scores_turned_over(tiny):
    image = random_images(3, 160, 160)
    score = tiny.network(image).detach()
    each = rali_zoo.quality_loss(tiny, reduction="none")
    assert torch.equal(each.score(image).detach(), score)
    assert torch.allclose(each(image), (5 - score) / 4)
    assert torch.allclose(rali_zoo.quality_loss(tiny)(image), each(image).mean())
    assert torch.allclose(rali_zoo.quality_loss(tiny, "sum")(image), each(image).sum())


def test_the_network_stays_as_it_is(tiny):
    parent = torch.nn.Sequential(rali_zoo.quality_loss(tiny))
    image = random_images(2, 160, 160)
    before, state = parent(image), copy.deepcopy(parent.state_dict())
    parent.train()
    assert not any(module.training for module in parent[0].modules())
    assert not any(p.requires_grad for p in parent.parameters())
    assert torch.equal(parent(image), before)
    assert all(torch.equal(value, state[key]) for key, value in parent.state_dict().items())
    assert any(p.requires_grad for p in tiny.network.parameters())  # the scorer that was given keeps its own
    assert parent.double()[0].network.dtype == torch.float64


def test_what_has_no_gradients_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match="reduction='avg'"):
        rali_zoo.quality_loss(tiny, "avg")
    with pytest.raises(ConfigError, match=r"expected \(B, 3, H, W\) floats"):
        rali_zoo.quality_loss(tiny)(torch.zeros(2, 3, 160, 160, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="is random"):
        cut(torch.zeros(1, 3, 50, 50), View("random_crop", size=20), Preprocess((20, 20)))


def test_exact_scores_are_those_of_files(clip, photo, tmp_path):
    images = [photo(50, 41, seed=i) for i in range(3)]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for photo, path in zip(images, paths, strict=True):
        Image.fromarray(photo).save(path)
    batch = torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in images])
    expected = torch.tensor([s.score for s in clip.score(paths)])
    for image in (batch, batch / 255):
        assert torch.allclose(exact_scores(clip, image), expected, rtol=0, atol=1e-6)
    assert float(expected.max() - expected.min()) > 1e-3
    with pytest.raises(ConfigError, match=r"image 1 of the batch.*expected \[0, 1\]"):
        exact_scores(clip, torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 40, 40))


def test_the_page_tells_the_truth():
    """Every example of docs/use_as_loss.md, in order, in one namespace."""
    page = (Path(__file__).parents[2] / "docs" / "use_as_loss.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 3
    namespace: dict[str, object] = {}
    for code in examples:
        exec(compile(code, "use_as_loss.md", "exec"), namespace)
