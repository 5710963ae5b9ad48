"""Every family of vision-language models: saved, loaded, sampled, one distribution for sampler and policy."""

from __future__ import annotations

import pytest
import torch
from reasoner_toys import SHORT, TINY, data, grpo, images, trainer
from vlm_families import build

import rali_zoo
from rali_zoo.models.files import save_scorer
from rali_zoo.trainers import Reasoner
from rali_zoo.vlm.generation import completion_logps
from rali_zoo.vlm.questions import Tasks

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava", "tiny")


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Reference of a tiny model of a family."""
    made = {"tiny": TINY}

    def get(kind: str) -> str:
        if kind not in made:
            made[kind] = build(kind, tmp_path_factory.mktemp("vlm") / kind)
        return made[kind]

    return get


@pytest.mark.parametrize("kind", FAMILIES)
def test_round_trip_of_a_family(family, kind, blurred, tmp_path):
    """Train a step; the checkpoint, the scorer file and the folder write what the model writes."""
    torch.manual_seed(0)
    module = grpo(family(kind))
    loop = trainer(tmp_path, max_steps=1)
    loop.fit(module, data(blurred))
    loop.save_checkpoint(tmp_path / "last.ckpt")
    save_scorer(module, tmp_path / "model.safetensors")
    module.network.save_pretrained(tmp_path / "hf")
    said = module.eval().network.write(images()).texts
    for ref in (f"ckpt:{tmp_path / 'last.ckpt'}", f"local-dir:{tmp_path}"):
        assert rali_zoo.load_model(ref).network.write(images()).texts == said
    assert Reasoner(f"hf:local-dir:{tmp_path / 'hf'}", grpo=SHORT).network.write(images()).texts == said


@pytest.mark.parametrize("kind", FAMILIES)
def test_sampler_and_policy_are_one_distribution(family, kind):
    """What was sampled is as likely as the entropy says, whatever the authors set for chatting."""
    module = Reasoner(family(kind), grpo=SHORT).eval()
    done = module.network.write(images(), n=64, temperature=1.3, seed=1)
    with torch.no_grad():
        logps, entropy = completion_logps(module.vlm, module.policy, done.prompts, done.ids, done.mask, 1.3)
    surprise = -logps.sum() / done.mask.sum()
    assert float(surprise) == pytest.approx(float(entropy.sum() / done.mask.sum()), rel=0.05)
    assert len(set(done.texts)) > 100  # not the top-k of 1 of the saved generation_config


@pytest.mark.parametrize("kind", FAMILIES)
def test_suppressed_tokens_are_never_sampled(family, kind):
    """Regression: a sampled image token makes the next forward pass fail."""
    module = Reasoner(family(kind), grpo=SHORT).eval()
    image = getattr(module.policy.config, "image_token_id", None) or module.policy.config.image_token_index
    assert image in module.vlm.suppressed and not set(module.vlm.end) & set(module.vlm.suppressed)
    head = module.policy.get_output_embeddings()
    banned = torch.tensor(module.vlm.suppressed)
    favoured = torch.nn.Linear(head.in_features, head.out_features)
    with torch.no_grad():
        favoured.weight.copy_(head.weight)
        favoured.bias.zero_()[banned] = 50.0
    module.policy.set_output_embeddings(favoured)
    done = module.network.write(images(), n=4, temperature=1.0, seed=0)
    assert not torch.isin(done.ids[done.mask.bool()], banned).any()
    logps, _ = completion_logps(module.vlm, module.policy, done.prompts, done.ids, done.mask)
    assert torch.isfinite(logps).all()


@pytest.mark.parametrize("kind", FAMILIES)
def test_batches_of_prompts_of_several_lengths(family, kind):
    """Left padding, and repeating, change nothing."""
    module = Reasoner(family(kind), grpo=SHORT).eval()
    tasks = Tasks("score-short", "degradation-short", 1.0)
    asked = [tasks.score, tasks.degradation, tasks.score]
    image = torch.cat([images(), images(1)])
    together = module.network.engine.generate(module.vlm.ask(image, asked), 1, 12, 0.0, 0).texts
    apart = [module.network.write(image[i : i + 1], asked[i]).texts[0] for i in range(3)]
    repeated = module.network.engine.generate(module.vlm.ask(image, asked).repeat(2), 1, 12, 0.0, 0).texts
    assert together == apart == repeated[::2] == repeated[1::2]


# ---- supervised ----
