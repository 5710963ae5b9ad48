"""What a vision-language model writes of images, and how likely it is: sampling and teacher forcing.

The sampler draws from the policy itself, softmax(logits / temperature) without the suppressed tokens: no
top-k, no top-p, no penalties, or the gradient would be that of another distribution.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rali_zoo.rl.objective import token_logps
from rali_zoo.vlm.model import VLM, Prompts
from rali_zoo.vlm.parsing import Parsed, parse
from rali_zoo.vlm.sharding import gathered


@dataclass(frozen=True)
class Completions:
    """N completions.

    Attributes:
        prompts: what was asked, N of them; completions of one image stand side by side.
        ids: (N, C), padded on the right.
        mask: (N, C), 1 up to and with the first end token.
        texts: N, decoded, without the end token.
        truncated: N, whether the limit of length cut it.
    """

    prompts: Prompts
    ids: Tensor
    mask: Tensor
    texts: list[str]
    truncated: list[bool]

    @property
    def parsed(self) -> list[Parsed]:
        """The texts, read."""
        return [parse(text) for text in self.texts]


class RolloutEngine(Protocol):
    """Whatever continues prompts."""

    def generate(
        self, prompts: Prompts, n: int, max_new_tokens: int, temperature: float, seed: int
    ) -> Completions:
        """Continue each prompt ``n`` times.

        Args:
            prompts: B questions.
            n: completions a question; 1 where ``temperature`` is 0.
            max_new_tokens: limit of length.
            temperature: of the sampler; 0 takes the likeliest token each time.
            seed: the same one gives the same completions.

        Returns:
            B * n completions, those of a prompt side by side.
        """
        ...


class TransformersEngine:
    """``generate`` of transformers, in this process, with the policy's own weights.

    Args:
        vlm: the model.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm

    @torch.no_grad()
    def generate(
        self, prompts: Prompts, n: int, max_new_tokens: int, temperature: float, seed: int
    ) -> Completions:
        """See :class:`RolloutEngine`; the state of torch's random numbers is left as it was."""
        from transformers import GenerationConfig

        repeated = prompts.repeat(n) if n > 1 else prompts
        sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=temperature > 0,
            eos_token_id=list(self.vlm.end),
            pad_token_id=self.vlm.pad,
            suppress_tokens=list(self.vlm.suppressed),
            use_cache=True,
            **sampling,
        )
        model: Any = self.vlm.model
        devices = [model.device] if model.device.type == "cuda" else []
        with evaluating(model), gathered(model), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            written = model.generate(**repeated.inputs, generation_config=config)
        ids = written[:, prompts.length :]
        mask, truncated = self._ends(ids)
        return Completions(repeated, ids, mask, self.vlm.read(ids, mask), truncated)

    def _ends(self, ids: Tensor) -> tuple[Tensor, list[bool]]:
        """(N, C) mask up to the first end token, and which rows have none."""
        is_end = torch.isin(ids, torch.tensor(self.vlm.end, device=ids.device))
        ends_before = is_end.long().cumsum(dim=1) - is_end.long()
        return (ends_before == 0).long(), (~is_end.any(dim=1)).tolist()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every part has the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def completion_logits(model: nn.Module, prompts: Prompts, ids: Tensor, mask: Tensor) -> Tensor:
    """(N, C, V) logits: position t predicts ``ids[:, t]`` from the prompt and what stands before it.

    Args:
        model: the policy.
        prompts: N questions.
        ids: (N, C) tokens of the completions.
        mask: (N, C) 1 for tokens, 0 for padding.
    """
    inputs = prompts.followed_by(ids, mask)
    # one more than the completion: the last token of the prompt predicts its first
    logits: Tensor = model(**inputs, logits_to_keep=ids.shape[1] + 1, use_cache=False).logits
    return logits[:, :-1]


def completion_logps(
    vlm: VLM, model: nn.Module, prompts: Prompts, ids: Tensor, mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of completions under a policy.

    Args:
        vlm: whose tokens are suppressed.
        model: the policy, or a reference of the same family.
        prompts: N questions.
        ids: (N, C).
        mask: (N, C).
        temperature: of the sampler.

    Returns:
        See :func:`rali_zoo.rl.objective.token_logps`.
    """
    logits = completion_logits(model, prompts, ids, mask)
    return token_logps(logits, ids, mask, temperature, vlm.suppressed)
