"""Our own small family: what its front end measures, and that it learns."""

import io

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image, ImageFilter
from scipy.stats import spearmanr
from skimage import data
from torch import nn

from rali_zoo.backbones import create_backbone
from rali_zoo.backbones.tiny import LogEnergy, dct_filters
from rali_zoo.errors import ConfigError, UriError
from rali_zoo.zoo import load_model

NAMES = ["rali:tiny", "rali:small", "rali:tiny-vit"]


def test_the_filters_are_scipys_dct():
    block = np.random.default_rng(0).random((8, 8))
    ours = torch.nn.functional.conv2d(torch.tensor(block)[None, None].float(), dct_filters()).flatten()
    theirs = scipy.fft.dctn(block, norm="ortho").ravel()
    order = sorted(range(64), key=lambda k: (k // 8 + k % 8, k))
    np.testing.assert_allclose(ours.numpy(), theirs[order], atol=1e-5)


def test_noise_raises_and_blur_lowers_the_highest_energies():
    photo = Image.fromarray(data.astronaut()[:128, 128:256])
    noisy = np.asarray(photo) + np.random.default_rng(0).normal(0, 20, (128, 128, 3))

    def highest(photo):
        image = torch.tensor(np.asarray(photo).clip(0, 255) / 255).permute(2, 0, 1)[None].float()
        return LogEnergy()(image)[0][0, -10:].mean().item()

    blurred = highest(photo.filter(ImageFilter.GaussianBlur(1.5)))
    assert blurred < highest(photo) - 0.1
    assert highest(noisy) > highest(photo) + 0.1


@pytest.mark.parametrize("uri", NAMES)
def test_shapes_at_any_size_and_gradients(uri):
    backbone = create_backbone(uri)
    assert 1e5 < sum(p.numel() for p in backbone.parameters()) < 1e6
    for height, width in ((32, 32), (160, 160), (75, 101)):
        pooled, tokens = backbone(torch.rand(2, 3, height, width))
        assert pooled.shape == (2, backbone.dim)
        assert tokens.shape[::2] == (2, backbone.token_dim)
    pooled.sum().backward()
    used = [p.grad is not None and torch.isfinite(p.grad).all() for p in backbone.parameters()]
    assert all(used)
    with pytest.raises(ConfigError, match="at least 32 x 32"):
        backbone(torch.rand(1, 3, 16, 64))


@pytest.mark.parametrize("uri", NAMES)
def test_a_constant_image_has_finite_gradients(uri):
    backbone = create_backbone(uri)
    backbone(torch.full((2, 3, 64, 64), 0.5)).pooled.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters())


@pytest.mark.parametrize("uri", NAMES)
def test_half_precision_agrees_with_full(uri):
    backbone = create_backbone(uri).eval()
    image = torch.rand(2, 3, 64, 64)
    full = backbone(image).pooled
    with torch.autocast("cpu", torch.bfloat16):
        mixed = backbone(image).pooled
    assert torch.nn.functional.cosine_similarity(mixed.float(), full).min() > 0.999
    assert backbone.bfloat16()(image.bfloat16()).pooled.dtype == torch.bfloat16


def test_weights_survive_a_file(tmp_path):
    from safetensors.torch import save_file

    first = create_backbone("rali:tiny").eval()
    save_file(first.net.state_dict(), tmp_path / "tiny.safetensors")
    second = create_backbone(f"rali:tiny?checkpoint={tmp_path / 'tiny.safetensors'}").eval()
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(first(image).pooled, second(image).pooled)
    assert second.revision != "random"


def images(photos, count, seed):
    """Crops of 64 px, blurred, noisy or JPEG-coded at one of six strengths; the strength is the target."""
    rng = np.random.default_rng(seed)
    images, levels = [], []
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        y, x = (int(rng.integers(side - 80)) for side in photo.shape[:2])
        image, level = Image.fromarray(photo[y : y + 72, x : x + 72]), int(rng.integers(6))
        kind = rng.integers(3) if level else -1
        if kind == 0:
            image = image.filter(ImageFilter.GaussianBlur(0.6 * level))
        elif kind == 1:
            noise = rng.normal(0, 8 * level, (72, 72, 3))
            image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
        elif kind == 2:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=(0, 60, 35, 20, 11, 5)[level])
            image = Image.open(buffer)
        dy, dx = rng.integers(8, size=2)
        images.append(np.asarray(image)[dy : dy + 64, dx : dx + 64])
        levels.append(level)
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255, torch.tensor(levels).float()


@pytest.mark.parametrize(
    ("name", "scorer"), [("small", "regression-tiny-synthetic"), ("tiny", "rali-tiny-synthetic")]
)
def test_shipped_weights_are_those_of_the_scorer(name, scorer):
    backbone = create_backbone(f"rali:{name}?weights=shipped").eval()
    theirs = load_model(scorer).network.backbone.eval()
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(backbone(image).pooled, theirs(image).pooled) and backbone.revision != "random"
    assert create_backbone(f"rali:{name}?weights=shipped", pretrained=False).revision == "random"
    with pytest.raises(UriError, match="rali:small and rali:tiny"):
        create_backbone("rali:tiny-vit?weights=shipped")
    with pytest.raises(UriError, match="shipped"):
        create_backbone(f"rali:{name}?weights=shiped")


def test_it_learns_distortion_strength_of_unseen_photos_in_seconds():
    torch.manual_seed(0)
    train, target = images([data.astronaut(), data.coffee()], 400, 0)
    test, truth = images([data.chelsea()], 150, 1)
    backbone = create_backbone("rali:tiny")
    head = nn.Linear(backbone.dim, 1)
    optimiser = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], 2e-3)
    for step in range(60):
        rows = torch.randint(len(train), (32,), generator=torch.Generator().manual_seed(step))
        loss = (head(backbone(train[rows]).pooled)[:, 0] - target[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    backbone.eval()
    with torch.inference_mode():
        predicted = head(backbone(test).pooled)[:, 0]
    assert spearmanr(predicted, truth).statistic > 0.5
