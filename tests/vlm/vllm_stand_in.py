"""A stand-in for the module ``vllm``: takes what vLLM's documented ``LLM`` takes, and no other arguments.

Its model is a transformers one read from the folder, so that it writes what the policy writes exactly if it
got the policy's weights, prompts, images, limits and suppressed tokens. Nothing of vLLM is in here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import torch

from rali_zoo.vlm.generation import TransformersEngine
from rali_zoo.vlm.model import load_vlm


@dataclass
class SamplingParams:
    """Those of vLLM's that are used; another name is a TypeError, as there."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    detokenize: bool = True


@dataclass
class LLM:
    """``vllm.LLM`` with the arguments that are used."""

    model: str
    revision: str | None = None
    tensor_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    limit_mm_per_prompt: dict[str, int] = field(default_factory=dict)
    enable_prefix_caching: bool = True
    mm_processor_cache_gb: float = 4

    made = []

    def __post_init__(self):
        # its workers read these, and torch wants them before it makes a process group
        self.environment = {n: os.environ.get(n) for n in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
        self.own = load_vlm(f"hf:local-dir:{self.model}")
        self.loaded: dict[str, torch.Tensor] = {}
        self.asked: list[tuple[dict, SamplingParams]] = []
        LLM.made.append(self)

    def apply_model(self, function):
        """Run a function on the model in each worker."""
        return [function(SimpleNamespace(load_weights=self._load_weights))]

    def _load_weights(self, weights):
        found = dict(weights)
        known = dict(self.own.model.named_parameters())  # tied weights once
        assert found.keys() == known.keys(), found.keys() ^ known.keys()
        with torch.no_grad():
            for name, value in found.items():
                known[name].copy_(value)
        self.loaded = found
        return set(found)

    def generate(self, prompts, sampling_params, use_tqdm=True):
        """One answer a prompt, each with ``n`` outputs; ends are part of ``token_ids``."""
        assert len(prompts) == len(sampling_params)
        return [self._answer(p, s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _answer(self, prompt, sampling):
        assert set(prompt) == {"prompt", "multi_modal_data"}
        self.asked.append((prompt, sampling))
        image = np.array(prompt["multi_modal_data"]["image"])
        assert image.dtype == np.uint8 and image.shape[2] == 3
        inputs = self.own.processor(
            text=[prompt["prompt"]], images=[torch.from_numpy(image).permute(2, 0, 1)], return_tensors="pt"
        )
        prompts = SimplePrompts({k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)})
        assert set(sampling.stop_token_ids) == set(self.own.end)
        assert {i for i, bias in sampling.logit_bias.items() if bias == -100} == set(self.own.suppressed)
        done = TransformersEngine(self.own).generate(
            prompts, sampling.n, sampling.max_tokens, sampling.temperature, sampling.seed
        )
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(done.ids, done.mask, strict=True)]
        return SimpleNamespace(
            prompt_token_ids=prompts.inputs["input_ids"][0].tolist(),
            outputs=[SimpleNamespace(token_ids=tuple(row)) for row in rows],
        )


@dataclass
class SimplePrompts:
    """One prompt, as far as the transformers engine looks at it."""

    inputs: dict[str, torch.Tensor]

    @property
    def length(self):
        return self.inputs["input_ids"].shape[1]

    def repeat(self, n):
        grid = self.inputs.get("image_grid_thw")
        times = {k: (n, *[1] * (v.ndim - 1)) for k, v in self.inputs.items()}
        assert grid is None or len(grid) == 1
        return SimplePrompts({k: v.repeat(times[k]) for k, v in self.inputs.items()})


def module() -> ModuleType:
    """To be put into ``sys.modules`` as ``vllm``."""
    made = ModuleType("vllm")
    made.LLM, made.SamplingParams = LLM, SamplingParams
    LLM.made = []
    return made
