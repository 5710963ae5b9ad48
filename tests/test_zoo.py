"""References of trained scorers, and those that the package carries."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageFilter

import rali_zoo
from rali_zoo.errors import CheckpointError, UnknownNameError, UriError
from rali_zoo.paths import SHIPPED


def test_the_carried_model_prefers_the_sharp_image():
    from skimage import data

    scorer = rali_zoo.load_model("rali-tiny-synthetic")
    assert "rali-tiny-synthetic" in rali_zoo.list_models()
    assert scorer.training_sets == ("synthetic:lab",)
    sharp = Image.fromarray(data.astronaut()).resize((256, 256))
    images = [sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 2, 5)]
    clean, soft, blurred = (s.score for s in scorer.score(images))
    assert clean > soft > blurred and clean > blurred + 1
    assert all(0 < s.std < 2 and len(s.explanation) == 3 for s in scorer.score(images))
    noisy = Image.blend(sharp, Image.effect_noise((256, 256), 90).convert("RGB"), 0.4)
    assert scorer.score(noisy)[0].score < clean - 0.3


@pytest.mark.parametrize(
    ("ref", "error", "says"),
    [
        ("rali-tiny", UriError, "rali-tiny-synthetic"),
        ("ckpt:none.ckpt", CheckpointError, "no checkpoint at none.ckpt"),
        ("local-dir:none", CheckpointError, "no scorer at none"),
        ("ckpt:a?x=1", UriError, "no option 'x'"),
        ("hub:org/repo", UriError, "hf-hub"),
    ],
)
def test_bad_references_say_what_to_type(ref, error, says):
    with pytest.raises(error, match=says):
        rali_zoo.load_model(ref)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no rali_zoo header"):
        rali_zoo.load_model(f"local-dir:{tmp_path}")


def test_an_unreachable_hub_is_an_error_of_ours(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(CheckpointError, match="use local-dir:PATH"):
        rali_zoo.load_model("hf-hub:org/repo@rev")


def test_public_names_are_there_and_misses_are_said():
    assert "koniq10k" in rali_zoo.list_datasets() and "synthetic:lab" in rali_zoo.list_datasets()
    assert all(getattr(rali_zoo, name) is not None for name in rali_zoo.__all__)
    with pytest.raises(AttributeError, match="load_model"):
        _ = rali_zoo.load_modle
    assert issubclass(UnknownNameError, LookupError)


def test_the_shipped_reasoner_describes_and_rates(photo):
    path = SHIPPED["reasoner-tiny-synthetic"]
    assert path.stat().st_size <= 15 * 2**20 and path.stat().st_mode & 0o044 == 0o044
    scorer = rali_zoo.load_model("reasoner-tiny-synthetic")
    (score,) = scorer.score([photo(160, 160, seed=1)])
    assert score.error is None and 1 <= score.score <= 5
    image = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for parsed in scorer.network.write(image).parsed:
        assert parsed.score is not None and parsed.think
