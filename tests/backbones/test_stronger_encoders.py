"""The encoders of configs/backbones: known to the installed libraries, and built without their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from rali_zoo.backbones import BACKBONES, create_backbone
from rali_zoo.backbones.open_clip import find
from rali_zoo.uri import parse_uri

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "backbones").glob("*.yaml"))
URIS = {path.stem: yaml.safe_load(path.read_text())["model"]["init_args"]["backbone"] for path in CONFIGS}


def test_there_is_a_config_of_each_family():
    names = " ".join(URIS.values()).lower()
    assert all(word in names for word in ("siglip2", "siglip_512.v2", "dinov3", "mobileclip2"))


@pytest.mark.parametrize("name", sorted(URIS))
def test_the_library_knows_the_weights(name):
    uri = parse_uri(URIS[name], BACKBONES, "backbone")
    if uri.scheme == "open_clip":
        assert find(uri, needs_tag=True).tag
    else:
        import timm

        assert uri.id in timm.list_models(pretrained=True)


@pytest.mark.parametrize("name", sorted(n for n, uri in URIS.items() if uri.startswith("timm:")))
def test_it_is_built_and_gives_features_of_its_width(name):
    with torch.device("meta"):  # shapes without memory
        backbone = create_backbone(URIS[name], pretrained=False).eval()
        out = backbone(torch.rand(2, 3, *backbone.preprocess.size))
    assert backbone.preprocess.size == (512, 512) and backbone.preprocess.resize == "squash"
    assert out.pooled.shape == (2, backbone.dim) and out.tokens.shape == (2, 1024, backbone.token_dim)
    if "levels" in URIS[name]:
        assert backbone.dim == 4 * 2 * backbone.token_dim  # four blocks, mean and deviation


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(n for n, uri in URIS.items() if uri.startswith("open_clip:Mobile")))
def test_the_small_one_runs(name):
    backbone = create_backbone(URIS[name], pretrained=False).eval()
    with torch.inference_mode():
        out = backbone(torch.rand(1, 3, *backbone.preprocess.size))
    assert out.pooled.shape == (1, backbone.dim) and torch.isfinite(out.pooled).all()
