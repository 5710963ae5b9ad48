"""What reinforcement assumes and what a batch may be: dropout, images of several sizes, frozen parts, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from reasoner_toys import SHORT, TINY, data, grpo, images, trainer
from vlm_families import build

from rali_zoo.data.datamodule import IQADataModule
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.trainers import RACT, Reasoner
from rali_zoo.trainers.reasoner import Schedule
from rali_zoo.vlm.generation import completion_logps
from rali_zoo.vlm.tuning import Tuning

SIZES = [(40, 40), (56, 32), (33, 47), (28, 64)]


def dropping(kind: str, folder: Path) -> str:
    """Reference of a model whose authors trained it with attention dropout."""
    ref = build(kind, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, *(v for v in config.values() if isinstance(v, dict))):
        if "attention_dropout" in part:
            part["attention_dropout"] = 0.4
    (folder / "config.json").write_text(json.dumps(config))
    return ref


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "llava"])
def test_a_policy_in_reinforcement_drops_nothing(kind, checkpointing, tmp_path):
    """Attention dropout is no module: two passes of a training policy differed by .7 nats a token."""
    tuning = Tuning(freeze_vision=False, gradient_checkpointing=checkpointing)
    module = grpo(dropping(kind, tmp_path / kind), tuning=tuning).train()
    done = module.network.write(images(), n=2, temperature=1.0)
    passes = [
        completion_logps(module.vlm, module.policy, done.prompts, done.ids, done.mask)[0] for _ in range(2)
    ]
    assert torch.equal(passes[0], passes[1])
    assert passes[0].requires_grad  # and it can learn
    imitating = Reasoner(module.vlm.uri, tuning=tuning, grpo=SHORT).train()
    first, second = (
        completion_logps(imitating.vlm, imitating.policy, done.prompts, done.ids, done.mask)[0]
        for _ in range(2)
    )
    assert not torch.equal(first, second)  # where dropout is meant to be, it is


@pytest.fixture
def unequal(photo_folder, tmp_path) -> str:
    """Reference of photographs of four sizes."""
    files = [
        f for i, (h, w) in enumerate(SIZES) for f in photo_folder(4, tmp_path / f"own{i}", height=h, width=w)
    ]
    rows = {
        "image": [f.relative_to(tmp_path) for f in files], "mos": [i % 7 for i in range(16)],
        "split": ["train"] * 4 + ["test"] * 2 + ["val"] * 2 + ["train"] * 8,
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "s.csv", index=False)
    return f"csv:{tmp_path / 's.csv'}?mos_range=0,7"


@pytest.mark.parametrize("kind", ["tiny", "qwen2_5_vl", "llava"])
def test_images_of_several_sizes_in_one_batch(kind, tmp_path):
    """What is written about an image does not hang on the sizes of the others."""
    torch.manual_seed(0)
    module = Reasoner(TINY if kind == "tiny" else build(kind, tmp_path / kind), grpo=SHORT).eval()
    some = [torch.rand(3, h, w) for h, w in SIZES]
    together = module.network.write(some)
    assert together.texts == [module.network.write(image[None]).texts[0] for image in some]
    assert [tuple(x.shape[1:]) for x in together.prompts.images] == SIZES
    drawn = module.network.write(some, n=2, temperature=1.0)
    assert len(drawn.texts) == 8 and [tuple(x.shape[1:]) for x in drawn.prompts.images[::2]] == SIZES


@pytest.mark.parametrize("objective", ["sft", "grpo"])
def test_own_photographs_of_several_sizes_train(objective, unequal, tmp_path):
    module = Reasoner(TINY, objective, grpo=SHORT, rewards={"format": 1.0, "thurstone_fidelity": 1.0})
    loop = trainer(tmp_path, limit_val_batches=1.0)
    source = IQADataModule(train=unequal, val=unequal, test=unequal, batch_size=4, descriptions="attributes")
    loop.fit(module, source)
    loop.test(module, source, verbose=False)
    assert loop.global_step == 3 and len(module.test_tables[unequal]) == 2


def test_a_score_brings_its_text():
    torch.manual_seed(0)
    network = Reasoner(TINY, grpo=SHORT).network
    (score,) = NetworkScorer(network, "tiny").score(images(1)[0])
    assert score.error and score.text == network.write(images(1)).texts[0] != ""


@pytest.mark.parametrize("frozen", ["vision", "language"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_frozen_does_not_move(frozen, method, blurred, texts, tmp_path):
    """No parameter and no buffer: running statistics of a frozen part are part of it."""
    kind = TINY if method == "full" else build("qwen2_5_vl", tmp_path / "qwen")
    tuning = Tuning(
        method=method, rank=2, freeze_vision=frozen == "vision", freeze_language=frozen == "language"
    )
    module = Reasoner(kind, tuning=tuning, schedule=Schedule(lr=1e-2), grpo=SHORT)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer(tmp_path, max_steps=3).fit(module, data(blurred, descriptions=texts))
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    inside = {name for name in moved if any(part in name for part in ("vision_tower", "visual"))}
    joint = {name for name in moved if "projector" in name}  # learns with whatever does
    assert moved and (not inside if frozen == "vision" else moved == inside | joint)
    assert method == "full" or all("lora" in name for name in moved)


@pytest.mark.parametrize("kind", ["Reasoner", "RACT"])
def test_a_resumed_fit_ends_as_an_undisturbed_one_to_the_bit(kind, texts, blurred, tmp_path):
    """With dropout, whose numbers are functions of seed, epoch and batch."""
    vlm = dropping("qwen2_5_vl", tmp_path / "qwen")
    ended = []
    for resume in (None, tmp_path / "epoch=0.ckpt"):
        torch.manual_seed(0 if resume is None else 1)  # nothing may hang on what was drawn before
        tuning = Tuning(method="lora", rank=2, dropout=0.3)
        if kind == "RACT":
            module = RACT(vlm, tuning=tuning, schedule=Schedule(lr=1e-2), max_completion_length=12)
        else:
            module = Reasoner(vlm, tuning=tuning, schedule=Schedule(lr=1e-2), grpo=SHORT)
        if resume is None:
            start = {k: v.clone() for k, v in module.state_dict().items()}
        else:
            assert module.load_state_dict(start)
        each = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        loop = trainer(
            tmp_path, max_epochs=2, enable_checkpointing=True, callbacks=[each], limit_train_batches=2
        )
        loop.fit(
            module, data(blurred, descriptions=texts), ckpt_path=resume, weights_only=True if resume else None
        )
        ended.append({k: v.clone() for k, v in module.state_dict().items()})
    assert any("lora_B" in name and value.any() for name, value in ended[0].items())
    for name, value in ended[0].items():
        torch.testing.assert_close(ended[1][name], value, rtol=0, atol=0, msg=name)
