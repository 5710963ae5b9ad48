"""open_clip's adapters (image and text) against open_clip itself, on a tiny model in its real layout."""

import json
import tomllib
from pathlib import Path

import open_clip
import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import save_file

from rali_zoo.backbones import create_backbone
from rali_zoo.errors import CheckpointError, ConfigError, UriError
from rali_zoo.text import create_text_encoder

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
VISION = {
    "vit": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "timm": {"image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"},
}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(scope="module", params=list(VISION))
def folder(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp(request.param), VISION[request.param])


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return make(tmp_path_factory.mktemp("vit"), VISION["vit"])


def make(path, vision):
    config = {
        "model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT},
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bilinear", "resize_mode": "squash"},
    }
    (path / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


def test_images_are_encoded_as_open_clip_does(folder):
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()
    backbone = create_backbone(f"open_clip:local-dir:{folder}").eval()
    image = torch.rand(2, 3, *backbone.preprocess.size)
    x = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.inference_mode():
        pooled, tokens = backbone(image)
        torch.testing.assert_close(pooled, model.encode_image(x))
    assert pooled.shape == (2, backbone.dim) == (2, 24)
    assert tokens.shape[2] == backbone.token_dim
    assert backbone.preprocess.resize == "squash"
    assert backbone.preprocess.interpolation == "bilinear"
    assert backbone.preprocess.crop_rule == "round"
    assert sum(p.numel() for p in backbone.parameters()) == sum(p.numel() for p in model.visual.parameters())


@torch.inference_mode()
def test_tokens_are_those_of_the_tower(vit):
    model = open_clip.create_model(f"local-dir:{vit}").eval()
    model.visual.output_tokens = True
    backbone = create_backbone(f"open_clip:local-dir:{vit}?mean=0,0,0&std=1,1,1").eval()
    image = torch.rand(2, 3, 32, 32)
    _, tokens = model.visual(image)
    torch.testing.assert_close(backbone(image).tokens, tokens)
    averaged = create_backbone(f"open_clip:local-dir:{vit}?mean=0,0,0&std=1,1,1&pool=avg").eval()
    torch.testing.assert_close(averaged(image).pooled, tokens.mean(1))


@torch.inference_mode()
def test_size_resamples_positions_as_open_clip_does(vit):
    weights = vit / "open_clip_model.safetensors"
    for uri in (
        f"open_clip:local-dir:{vit}?size=48",
        f"open_clip:local-dir:{vit}?size=48&checkpoint={weights}",
    ):
        backbone = create_backbone(uri).eval()
        model = open_clip.create_model(f"local-dir:{vit}", force_image_size=48).eval()
        image = torch.rand(1, 3, 48, 48)
        x = (image - backbone.mean) / backbone.std
        torch.testing.assert_close(backbone(image).pooled, model.encode_image(x))
        with pytest.raises(ConfigError, match="size=32x32"):
            backbone(torch.rand(1, 3, 32, 32))


def test_weights_are_required_unless_declined(vit, tmp_path):
    (tmp_path / "open_clip_config.json").write_text((vit / "open_clip_config.json").read_text())
    with pytest.raises(CheckpointError, match="could not fetch or read"):
        create_backbone(f"open_clip:local-dir:{tmp_path}")
    assert create_backbone(f"open_clip:local-dir:{tmp_path}", pretrained=False).revision == "random"
    loaded = create_backbone(
        f"open_clip:local-dir:{tmp_path}?checkpoint={vit / 'open_clip_model.safetensors'}"
    )
    assert loaded.revision == create_backbone(f"open_clip:local-dir:{vit}").revision


def test_openai_weights_get_the_gelu_they_were_trained_with(monkeypatch):
    """``ViT-L-14-336`` says GELU, its ``openai`` weights want QuickGELU; open_clip only warns."""
    seen = {}

    def spy(model, **kwargs):
        seen[model] = kwargs
        raise RuntimeError("seen enough")

    monkeypatch.setattr(open_clip, "create_model", spy)
    for uri in ("open_clip:ViT-L-14-336/openai", "open_clip:ViT-B-32/laion2b_s34b_b79k"):
        with pytest.raises(CheckpointError, match="seen enough"):
            create_backbone(uri)
    assert seen["ViT-L-14-336"]["force_quick_gelu"] is True
    assert seen["ViT-B-32"]["force_quick_gelu"] is False


@torch.inference_mode()
def test_texts_are_encoded_as_open_clip_does(vit):
    model = open_clip.create_model(f"local-dir:{vit}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{vit}")
    encoder = create_text_encoder(f"open_clip:local-dir:{vit}")
    texts = ["a sharp photo", "noise", "a sharp photo"]
    torch.testing.assert_close(encoder.encode(texts), model.encode_text(tokenizer(texts)))
    text_parameters = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("visual."))
    assert sum(p.numel() for p in encoder.parameters()) == text_parameters
    assert encoder.dim == 24


@torch.inference_mode()
def test_long_texts_are_cut_or_chunked_by_choice(vit):
    words = [f"word{i}" for i in range(12)]  # 2 tokens each or more, the context is 16
    long = " ".join(words)
    cut = create_text_encoder(f"open_clip:local-dir:{vit}")
    with pytest.warns(UserWarning, match="1 of 2 texts exceed the context length"):
        truncated = cut.encode([long, "short"])
    whole = create_text_encoder(f"open_clip:local-dir:{vit}?long=chunk")
    pieces = whole._cut(long)
    assert " ".join(pieces) == long
    assert len(pieces) > 1
    torch.testing.assert_close(truncated[0], cut.encode(pieces[:1])[0])
    torch.testing.assert_close(whole.encode([long])[0], cut.encode(pieces).mean(0))
    torch.testing.assert_close(whole.encode(["short"])[0], truncated[1])


@pytest.mark.parametrize(
    ("arch", "open_"),
    [
        ("ViT-B-32", "quick_gelu"),  # openai's weights want QuickGELU, laion's do not
        (
            "ViT-L-14-336",
            "quick_gelu",
        ),  # all published weights want it, the architecture's file does not say so
        ("ViT-B-16-SigLIP2", "mean, std, resize"),
    ],
)
def test_a_weights_file_that_fits_with_several_settings_needs_them(arch, open_, tmp_path):
    (tmp_path / "w.pt").touch()
    with pytest.raises(UriError, match=f"several settings of {open_},.*/TAG.checkpoint=FILE"):
        create_backbone(f"open_clip:{arch}?checkpoint={tmp_path / 'w.pt'}")


def test_settings_of_a_weights_file_by_tag_or_by_option(tmp_path, monkeypatch):
    (tmp_path / "w.pt").touch()
    seen = []

    def spy(model, **kwargs):
        seen.append(kwargs["force_quick_gelu"])
        raise RuntimeError("seen enough")

    monkeypatch.setattr(open_clip, "create_model", spy)
    for head in ("ViT-B-32/openai?", "ViT-B-32?quick_gelu=true&", "ViT-B-32?quick_gelu=false&"):
        with pytest.raises(CheckpointError, match="seen enough"):
            create_backbone(f"open_clip:{head}checkpoint={tmp_path / 'w.pt'}")
    assert seen == [True, True, False]


@torch.inference_mode()
def test_quick_gelu_is_what_openai_calls_it():
    exact = create_backbone("open_clip:ViT-S-32-alt?pretrained=false").eval()
    quick = create_backbone("open_clip:ViT-S-32-alt?pretrained=false&quick_gelu=true").eval()
    quick.load_state_dict(exact.state_dict())
    gelus = [m for m in quick.modules() if type(m).__name__ == "QuickGELU"]
    assert gelus
    image = torch.rand(1, 3, *exact.preprocess.size)
    assert not torch.allclose(exact(image).pooled, quick(image).pooled, atol=1e-4)


def test_no_load_is_called_random(vit, caplog):
    create_backbone(f"open_clip:local-dir:{vit}?checkpoint={vit / 'open_clip_model.safetensors'}")
    create_backbone(f"open_clip:local-dir:{vit}?pretrained=false")
    create_text_encoder(f"open_clip:local-dir:{vit}")
    assert "randomly" not in caplog.text


def test_code_of_a_repository_is_refused_without_asking(tmp_path, monkeypatch):
    """A config may name a transformers model for the texts, and that one code of its own."""
    named = tmp_path / "named"
    named.mkdir()
    (named / "config.json").write_text(
        json.dumps(
            {"model_type": "odd", "auto_map": {"AutoConfig": "code.Odd", "AutoModel": "code.OddModel"}}
        )
    )
    (named / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = {"embed_dim": 24, "vision_cfg": VISION["vit"]}
    config["text_cfg"] = {"hf_model_name": str(named), "hf_tokenizer_name": str(named), "hf_proj_type": "mlp"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    for create in (create_backbone, create_text_encoder):
        with pytest.raises(CheckpointError):
            create(f"open_clip:local-dir:{tmp_path}?pretrained=false")
    assert not (tmp_path / "ran").exists()


def test_a_next_major_version_is_not_installed_unseen():
    """Version 4 drops ``load_openai_model`` and takes OpenAI's weights from elsewhere."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (needed,) = (need for need in map(Requirement, project["dependencies"]) if need.name == "open_clip_torch")
    assert not needed.specifier.contains("4.0.0") and needed.specifier.contains(open_clip.__version__)
