"""The vLLM engine against a stand-in: what it asks for, what it gets, and which weights it pushes."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from vlm_families import build

from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.rl.grpo import Sampling
from rali_zoo.rl.objective import Objective
from rali_zoo.trainers import Reasoner
from rali_zoo.trainers.reasoner import Schedule
from rali_zoo.vlm.generation import TransformersEngine
from rali_zoo.vlm.generation_vllm import VLLMEngine, merged_weights
from rali_zoo.vlm.model import load_vlm
from rali_zoo.vlm.prompts import prompt
from rali_zoo.vlm.tuning import Tuning


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> str:
    return build("qwen2_5_vl", tmp_path_factory.mktemp("vlm") / "qwen")


@pytest.fixture
def vllm(monkeypatch):
    import vllm_stand_in

    made = vllm_stand_in.module()
    monkeypatch.setitem(sys.modules, "vllm", made)
    return made


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def reasoner(qwen: str, **options) -> Reasoner:
    settings = {
        "sampling": Sampling(rollouts=2, engine="vllm", vllm_memory=0.25, vllm_length=512),
        "grpo": Objective(max_completion_length=6), "rewards": {"format": 1.0},
    }  # fmt: skip
    return Reasoner(qwen, "grpo", **{**settings, **options})


def test_without_vllm_the_extra_is_named(qwen, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"rali-zoo\[vllm\]"):
        reasoner(qwen)
    assert isinstance(reasoner(qwen, sampling=Sampling()).network.engine, TransformersEngine)


def test_a_model_that_it_cannot_run_is_refused(vllm):
    with pytest.raises(ConfigError, match="sampling.engine=transformers"):
        VLLMEngine(load_vlm("rali:vlm-tiny?image_size=32&width=32&layers=1&grid=2"), 0.3, 512)


def test_the_same_tokens_make_the_same_completions(qwen, vllm):
    """Prompts of two lengths; greedy and sampled, several each."""
    module = reasoner(qwen).eval()
    asked = [module.tasks.score, prompt("degradation-short")]
    prompts = module.vlm.ask(images(2), asked)
    before = dict(os.environ)
    greedy = module.network.engine.generate(prompts, 1, 6, 0.0, 5)
    expected = TransformersEngine(module.vlm).generate(prompts, 1, 6, 0.0, 5)
    assert greedy.texts == expected.texts and greedy.truncated == expected.truncated
    assert torch.equal(greedy.ids, expected.ids) and torch.equal(greedy.mask, expected.mask)

    sampled = module.network.engine.generate(prompts, 3, 6, 1.3, 5)
    (llm,) = vllm.LLM.made
    seeds = [s.seed for _, s in llm.asked[-2:]]
    assert seeds == [5, 8], "the completions of one prompt use seeds that no other prompt uses"
    for row, seed in enumerate(seeds):
        alone = TransformersEngine(module.vlm).generate(prompts.take([row]), 3, 6, 1.3, seed)
        assert sampled.texts[3 * row : 3 * row + 3] == alone.texts
    assert len(set(sampled.texts)) > 2
    assert torch.equal(sampled.prompts.inputs["input_ids"], prompts.repeat(3).inputs["input_ids"])
    asked_for, sampling = llm.asked[-1]
    assert asked_for["prompt"] == prompts.texts[1] and sampling.temperature == 1.3 and sampling.n == 3
    assert (llm.gpu_memory_utilization, llm.max_model_len) == (0.25, 512)
    assert llm.mm_processor_cache_gb == 0 and not llm.enable_prefix_caching
    assert llm.environment["RANK"] == "0" and llm.environment["WORLD_SIZE"] == "1"
    assert dict(os.environ) == before


def test_ends_and_limits_are_told_apart(qwen, vllm):
    module = reasoner(qwen)
    end = module.vlm.end[0]
    prompts = module.vlm.ask(images(2), [module.tasks.score] * 2)
    done = module.network.engine._completions(prompts, [[40, end], [41, 42, 43]])
    assert done.truncated == [False, True] and done.mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert done.texts[0] == module.vlm.tokenizer.decode([40])


def test_a_prompt_that_is_read_otherwise_is_an_error(qwen, vllm, monkeypatch):
    module = reasoner(qwen)
    answer = vllm.LLM._answer

    def other(self, prompt, sampling):
        found = answer(self, prompt, sampling)
        found.prompt_token_ids = found.prompt_token_ids[1:]
        return found

    monkeypatch.setattr(vllm.LLM, "_answer", other)
    with pytest.raises(ConfigError, match="reads a prompt"):
        module.network.write(images(1))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_are_pushed_after_a_step(qwen, vllm, method, tmp_path, photo_folder):
    """What vLLM writes after training is what the policy writes, with its adapter."""
    import lightning as L
    import pandas as pd

    from rali_zoo.data import IQADataModule

    files = photo_folder(6, height=40, width=40)
    table = {"image": [f.name for f in files], "mos": range(6), "split": ["train"] * 4 + ["val", "test"]}
    pd.DataFrame(table).to_csv(files[0].parent / "s.csv", index=False)
    torch.manual_seed(0)
    module = reasoner(
        qwen, tuning=Tuning(method=method, rank=2, freeze_vision=False), schedule=Schedule(lr=0.1),
        rewards={"length_guard": 1.0},
    )  # fmt: skip
    roll_out = module.reinforcement.roll_out

    def graded(questions, prompts, seed):
        done = roll_out(questions, prompts, seed)
        # a young model earns the same for all it writes, and would learn nothing
        return done._replace(advantages=done.advantages + (done.completions.ids[:, 0] % 2).float())

    module.reinforcement.roll_out = graded
    start = {k: v.clone() for k, v in merged_weights(module.vlm.model)}
    L.Trainer(
        default_root_dir=tmp_path,
        max_steps=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    ).fit(module, IQADataModule(train=f"csv:{files[0].parent / 's.csv'}?mos_range=0,5", batch_size=2))
    (llm,) = vllm.LLM.made
    written = module.eval().network.write(images(2), n=2, temperature=1.0).texts
    now = dict(merged_weights(module.vlm.model))
    moved = [name for name in now if not torch.equal(now[name], start[name])]
    assert any(".visual." in name for name in moved)
    assert all(torch.equal(llm.loaded[name], now[name]) for name in now)
    if method == "lora":
        assert all(name.endswith("proj.weight") or "visual" in name for name in moved)
        merged = module.vlm.model.merge_and_unload().state_dict()
        for name, value in now.items():
            torch.testing.assert_close(value, merged[name], msg=name)
    assert len(set(written)) > 1
