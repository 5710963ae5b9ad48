"""Our own tiny vision-language model: what the rest of the package relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from rali_zoo.backbones import create_backbone
from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError
from rali_zoo.vlm.prompts import PROMPTS, messages, prompt, write_completion
from rali_zoo.vlm.tiny.model import build_tiny_vlm, calibration_images, load_vision, vision_encoder
from rali_zoo.vlm.tiny.text import IMAGE, NEVER_WRITTEN, TAGS

SIZE, GRID = 64, 2
TEXT = "Heavy defocus blur all over the image, badly turning points into discs. I rate it poor."


def small(folder: Path, seed: int = 0) -> Path:
    return build_tiny_vlm(folder, seed=seed, width=64, image_size=SIZE, grid=GRID)


def load(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def image(seed: int, size: tuple[int, int] = (80, 100)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def inputs(processor: Any, asked: list[str], completion: str | None = None, first: int = 0) -> Any:
    """Images ``first``, ``first + 1``, … each with its question."""
    turns = [messages(prompt(name), image(first + i), completion) for i, name in enumerate(asked)]
    return processor.apply_chat_template(
        turns,
        add_generation_prompt=completion is None,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=completion is not None,
        processor_kwargs={"padding": True},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("tiny") / "vlm")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    return load(folder)


def test_size_of_the_default(tmp_path: Path) -> None:
    model, processor = load(build_tiny_vlm(tmp_path / "vlm"))
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 3e6
    files = sum(f.stat().st_size for f in (tmp_path / "vlm").iterdir())
    assert files < 15e6
    batch = inputs(processor, ["score-short"])
    assert batch["pixel_values"].shape == (1, 3, 160, 160)
    assert (batch["input_ids"] == model.config.image_token_id).sum() == 10


def test_same_seed_same_files_and_another_seed_another_model(folder: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again, other = small(tmp_path / "again"), small(tmp_path / "other", seed=1)
    assert torch.equal(state, torch.get_rng_state())
    names = sorted(f.name for f in folder.iterdir())
    assert names == sorted(f.name for f in again.iterdir())
    assert all((folder / n).read_bytes() == (again / n).read_bytes() for n in names)
    assert [n for n in names if (folder / n).read_bytes() != (other / n).read_bytes()] == [
        "model.safetensors"
    ]


def test_reload_is_bit_equal(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = loaded
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = load(tmp_path)
    asked = ["score-short", "degradation-synthetic"]
    first, second = inputs(processor, asked), inputs(processor_again, asked)
    assert {k: v.tolist() for k, v in first.items()} == {k: v.tolist() for k, v in second.items()}
    with torch.inference_mode():
        assert torch.equal(model(**first).logits, again(**second).logits)


def test_template_puts_the_image_before_the_question(loaded: tuple[Any, Any]) -> None:
    _, processor = loaded
    for name, asked in PROMPTS.items():
        text = processor.apply_chat_template(messages(asked), add_generation_prompt=True, tokenize=False)
        system = f"<|system|>{asked.system}<|end|>" if asked.system else ""
        assert text == f"{system}<|user|>{IMAGE}{asked.text()}<|end|><|assistant|>", name


def test_the_mask_of_the_assistant_is_the_completion_and_its_end(loaded: tuple[Any, Any]) -> None:
    _, processor = loaded
    completion = write_completion(TEXT, 2.25)
    batch = inputs(processor, ["score-short"], completion)
    written = torch.as_tensor(batch["input_ids"])[torch.as_tensor(batch["assistant_masks"]).bool()]
    assert processor.decode(written) == completion + "<|end|>"


def test_tokenizer(loaded: tuple[Any, Any]) -> None:
    tokenizer = loaded[1].tokenizer
    for text in (
        write_completion(TEXT, 2.25),
        "Ünknown wörds 你好 and\nlines",
        *(p.text() for p in PROMPTS.values()),
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    tokens = tokenizer.tokenize(write_completion(TEXT, 2.25))
    assert tokens.count("2") == 2 and "5" in tokens  # a digit a token
    assert [t for t in tokens if t in TAGS] == list(TAGS)
    words = [t for t in tokens if t.strip("Ġ").isalpha()]
    assert len(words) == len(TEXT.split()) + 1  # whole words, and "rating"


def test_batches_generate_what_single_images_do(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    asked = ["score-short", "degradation-families", "score-number"]
    options = {"max_new_tokens": 12, "do_sample": False}
    batch = inputs(processor, asked)
    lengths = batch["attention_mask"].sum(dim=1)
    assert len(set(lengths.tolist())) == 3 and batch["attention_mask"][0, 0] == 0  # padded, on the left
    together = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
    for i, name in enumerate(asked):
        single = inputs(processor, [name], first=i)
        alone = model.generate(**single, **options)[0, single["input_ids"].shape[1] :]
        assert together[i, : len(alone)].tolist() == alone.tolist()


def test_tokens_of_images_and_turns_are_never_sampled(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    ids = processor.tokenizer.convert_tokens_to_ids(list(NEVER_WRITTEN))
    assert model.config.image_token_id in ids and processor.tokenizer.eos_token_id not in ids
    batch = inputs(processor, ["score-short"] * 8)
    start = batch["input_ids"].shape[1]
    torch.manual_seed(0)
    options = {
        "do_sample": True,
        "temperature": 100.0,
        "top_k": 0,
        "min_new_tokens": 150,
        "max_new_tokens": 150,
    }
    free = model.generate(**batch, **options, suppress_tokens=None)[:, start:]
    assert torch.isin(free, torch.tensor(ids)).any()  # it would, were it not for the settings in the folder
    written = model.generate(**batch, **options)[:, start:]
    assert not torch.isin(written, torch.tensor(ids)).any()


def test_supervised_steps_lower_the_loss_and_keep_the_statistics(folder: Path) -> None:
    model, processor = load(folder)
    batch = inputs(processor, ["score-short"] * 4, write_completion(TEXT, 2.25))
    mask = torch.as_tensor(batch.pop("assistant_masks")).bool()
    labels = batch["input_ids"].masked_fill(~mask, -100)
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.5
    gradients = [p.grad for p in vision_encoder(model).parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    after = model.state_dict()
    assert before and all(torch.equal(after[k], v) for k, v in before.items())


def test_the_first_token_is_what_the_backbone_pools(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(3)
    backbone = create_backbone("rali:tiny").train()
    backbone(torch.rand(4, 3, SIZE, SIZE))  # so that its statistics are not those of a new one
    backbone.eval()
    load_vision(copy, backbone)
    encoder = vision_encoder(load(copy)[0])
    image = calibration_images(SIZE)
    with torch.inference_mode():
        assert torch.allclose(encoder.pool(image)[:, 0], backbone(image).pooled, atol=1e-4)
        tokens = encoder.forward_features(image)
        assert tokens.shape == (len(image), backbone.dim, 1, 1 + GRID**2)
        assert tokens.mean(dim=(0, 2, 3)).abs().max() < 1e-3
        # a cell sees its own part of the image, but for the reach of the filters
        changed = image.clone()
        changed[:, :, :8, :8] = 1 - changed[:, :, :8, :8]
        moved = (encoder.forward_features(changed) - tokens).abs().mean(dim=(0, 1))[0]
    assert moved[1] == moved[1:].max() and moved[1] > 2 * moved[4]
    other = load(folder)[0].state_dict()
    new = {k for k, v in load(copy)[0].state_dict().items() if not torch.equal(v, other[k])}
    weights = {k for k, v in other.items() if ".vision_tower." in k and v.ndim == 4 and ".front." not in k}
    assert weights < new and all(".vision_tower." in k for k in new)


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds something already"):
        small(folder)
    for wrong in (
        {"width": 100},
        {"layers": 0},
        {"image_size": 16},
        {"grid": 0},
        {"image_size": 32, "grid": 12},
    ):
        with pytest.raises(ConfigError, match=next(reversed(wrong))):
            build_tiny_vlm(tmp_path / "new", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="'tiny-vit'"):
        build_tiny_vlm(tmp_path / "new", vision="tiny-vit")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="does not fit"):
        load_vision(folder, create_backbone("rali:small"))
    with pytest.raises(CheckpointError, match="rali:tiny-vit"):
        load_vision(folder, create_backbone("rali:tiny-vit"))
    with pytest.raises(CheckpointError, match="holds no model"):
        load_vision(tmp_path, create_backbone("rali:tiny"))
