"""Sampling by vLLM in the training process, on the policy's own GPU.

Written to vLLM's documented interface (0.11 and later) and tested with a stand-in that checks every call;
**we have not run it on a GPU**. Each process has an engine of its own for its own images, and the engine
gets the policy's weights before it writes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from rali_zoo.backbones.hf import locate
from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.uri import parse_uri
from rali_zoo.vlm.generation import Completions
from rali_zoo.vlm.model import VLM, Prompts
from rali_zoo.vlm.sharding import whole, without_adapter

if TYPE_CHECKING:
    from vllm import LLM

#: The least that vLLM's ``logit_bias`` takes; after it a token is e**-100 times as likely.
_NEVER = -100.0


class VLLMEngine:
    """A :class:`~rali_zoo.vlm.generation.Engine` on ``vllm.LLM``, made when it is first needed.

    vLLM computes with kernels of its own and in the type of the model's config, so that its probabilities
    differ a little from the policy's; the loss takes its samples for the policy's own.

    Args:
        vlm: the policy, a model whose folder or repository vLLM can read.
        memory: share of the GPU's memory in (0, 1) that vLLM takes for its copy of the weights and its cache.
        length: longest prompt and completion together, in tokens.

    Raises:
        MissingExtraError: vLLM is not installed.
        ConfigError: ``rali:vlm-tiny``, whose vision encoder vLLM does not know.
    """

    def __init__(self, vlm: VLM, memory: float, length: int) -> None:
        try:
            import vllm  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("vllm", "vllm") from error
        if vlm.uri.startswith("rali:"):
            raise ConfigError(f"vLLM cannot run '{vlm.uri}'; set sampling.engine=transformers")
        self.vlm, self.memory, self.length = vlm, memory, length
        self._llm: LLM | None = None

    @property
    def llm(self) -> LLM:
        """vLLM's engine in this process, without anything that is kept from one call to the next."""
        if self._llm is None:
            from vllm import LLM

            place, revision = locate(parse_uri(self.vlm.uri, ("hf",), "vision-language model"))
            with _one_process_each():
                self._llm = LLM(
                    model=place,
                    revision=revision,
                    tensor_parallel_size=1,
                    distributed_executor_backend="external_launcher",
                    gpu_memory_utilization=self.memory,
                    max_model_len=self.length,
                    limit_mm_per_prompt={"image": 1},
                    # both off: what was computed with earlier weights is then never used again
                    enable_prefix_caching=False,
                    mm_processor_cache_gb=0,
                )
        return self._llm

    @torch.no_grad()
    def generate(
        self, prompts: Prompts, n: int, max_new_tokens: int, temperature: float, seed: int
    ) -> Completions:
        """See :class:`~rali_zoo.vlm.generation.Engine`.

        Raises:
            ConfigError: vLLM reads a prompt as other tokens than the policy does.
        """
        from vllm import SamplingParams

        self.push()
        sampling = [
            SamplingParams(
                n=n,
                temperature=temperature,
                top_p=1.0,
                top_k=0,
                min_p=0.0,
                repetition_penalty=1.0,
                max_tokens=max_new_tokens,
                stop_token_ids=list(self.vlm.end),
                logit_bias=dict.fromkeys(self.vlm.suppressed, _NEVER),
                seed=seed + n * row,  # vLLM counts on from it for the n completions
                detokenize=False,
            )
            for row in range(len(prompts))
        ]
        asked = [
            {"prompt": text, "multi_modal_data": {"image": image}}
            for text, image in zip(prompts.texts, prompts.as_images(), strict=True)
        ]
        answers = self.llm.generate(asked, sampling, use_tqdm=False)
        for row, answer in zip(prompts.token_ids(), answers, strict=True):
            if list(answer.prompt_token_ids) != row:
                raise ConfigError(
                    f"vLLM reads a prompt as {len(answer.prompt_token_ids)} tokens and the processor of "
                    f"'{self.vlm.uri}' as {len(row)} others; set sampling.engine=transformers"
                )
        rows = [list(each.token_ids) for answer in answers for each in answer.outputs]
        return self._completions(prompts.repeat(n) if n > 1 else prompts, rows)

    def _completions(self, prompts: Prompts, rows: list[list[int]]) -> Completions:
        device = prompts.inputs["input_ids"].device
        ids = torch.full((len(rows), max(map(len, rows))), self.vlm.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        ids, mask = ids.to(device), mask.long().to(device)
        truncated = [row[-1] not in self.vlm.end for row in rows]
        return Completions(prompts, ids, mask, self.vlm.read(ids, mask), truncated)

    def push(self) -> None:
        """Give vLLM the policy's weights as they are now; of sharded ones every process has to take part."""

        def load(model: Any) -> None:
            model.load_weights(merged_weights(self.vlm.model))

        self.llm.apply_model(load)


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names that transformers gives them, one at a time: whole, and with the adapter added.

    The model is not changed: adding an adapter to bfloat16 weights and taking it away again would wear them.
    """
    root = without_adapter(model)
    for name, weight in root.named_parameters():  # tied ones once, as vLLM wants them
        if ".lora_" in name:
            continue
        full, (path, inside, _) = whole(weight.detach()), name.rpartition(".base_layer.weight")
        if inside:
            full = full + _adapter(root.get_submodule(path)).to(full.dtype)
        yield name.replace(".base_layer.", "."), full


def _adapter(layer: Any) -> Tensor:
    """What the active adapters add to the weight of a linear layer."""
    return sum(
        layer.scaling[name]
        * (whole(layer.lora_B[name].weight.detach()) @ whole(layer.lora_A[name].weight.detach()))
        for name in layer.active_adapters
    )


@contextmanager
def _one_process_each() -> Iterator[None]:
    """The environment in which vLLM's ``external_launcher`` runs inside a process of a trainer."""
    started = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if started else (0, 1)
    local = torch.cuda.current_device() if torch.cuda.is_available() else rank
    wanted = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local)}
    if not started:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            wanted |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:  # Lightning would take later runs of this process for parts of a larger one
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
