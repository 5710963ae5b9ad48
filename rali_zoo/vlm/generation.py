"""What a vision-language model writes of images, and how likely it is: sampling and teacher forcing.

The sampler draws from the model's own distribution, softmax(logits / temperature) without the suppressed tokens: no
top-k, no top-p, no penalties, or what is computed of its log-probabilities would be of another distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rali_zoo.errors import ConfigError
from rali_zoo.vlm.model import VLM, Prompts
from rali_zoo.vlm.parsing import Parsed, parse
from rali_zoo.vlm.sharding import gathered

_CHUNK_ELEMENTS = 2**25  # logits turned to float32 at a time: 128 MiB


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


class Engine(Protocol):
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
    """``generate`` of transformers, in this process, with the model's own weights.

    Args:
        vlm: the model.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm

    @torch.no_grad()
    def generate(
        self, prompts: Prompts, n: int, max_new_tokens: int, temperature: float, seed: int
    ) -> Completions:
        """See :class:`Engine`; the state of torch's random numbers is left as it was."""
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


def completion_logits(
    model: nn.Module, prompts: Prompts, ids: Tensor, mask: Tensor, at: Tensor | None = None
) -> Tensor:
    """(N, C, V) logits: position t predicts ``ids[:, t]`` from the prompt and what stands before it.

    Args:
        model: what predicts.
        prompts: N questions.
        ids: (N, C) tokens of the completions.
        mask: (N, C) 1 for tokens, 0 for padding.
        at: (K,) positions t in [0, C) that are wanted, for (N, K, V); all of them by default. All of a large
            vocabulary's would take much memory.
    """
    inputs = prompts.followed_by(ids, mask)
    if at is not None:
        few: Tensor = model(
            **inputs, logits_to_keep=prompts.length - 1 + at.to(ids.device), use_cache=False
        ).logits
        return few
    # one more than the completion: the last token of the prompt predicts its first
    logits: Tensor = model(**inputs, logits_to_keep=ids.shape[1] + 1, use_cache=False).logits
    return logits[:, :-1]


def completion_logps(
    vlm: VLM,
    model: nn.Module,
    prompts: Prompts,
    ids: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of completions under a model.

    Args:
        vlm: whose tokens are suppressed.
        model: what predicts: ``vlm``'s, or another of the same family.
        prompts: N questions.
        ids: (N, C).
        mask: (N, C).
        temperature: of the sampler.
        with_entropy: whether entropies are wanted; else they are 0.

    Returns:
        See :func:`token_logps`.
    """
    logits = completion_logits(model, prompts, ids, mask)
    return token_logps(logits, ids, mask, temperature, vlm.suppressed, with_entropy)


def token_logps(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    suppressed: Sequence[int] = (),
    with_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens that were sampled, and the entropy of what they were sampled from.

    Image placeholders and the like are suppressed when sampling, or the next forward pass fails on them. The
    same ids must be suppressed here, or these are the probabilities of another distribution.

    They are float32 whatever the model computes in, a slice at a time; where there are several, they are computed
    again in the backward pass: at 150,000 words of vocabulary a float32 copy of all logits would be the largest
    tensor of the step.

    Args:
        logits: (B, T, V), any float type; position t predicts ``tokens[:, t]``.
        tokens: (B, T) ids.
        mask: (B, T) nonzero on the tokens that count.
        temperature: of the sampler, above 0; the logits are divided by it.
        suppressed: ids that the sampler could not draw.
        with_entropy: whether entropies are wanted; else they are 0.

    Returns:
        Log-probabilities (B, T) in nats, float32, with gradient; entropies (B, T) in nats, float32, without.
        Both are 0 outside the mask.

    Raises:
        ConfigError: a temperature that is not positive, or a suppressed id among the tokens that count.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(
            f"temperature={temperature} must be a number above 0; greedy decoding has no distribution"
        )
    keep = mask.bool()
    banned = torch.tensor(sorted(set(suppressed)), dtype=torch.long, device=logits.device)
    drawn = tokens[keep & torch.isin(tokens, banned)].unique().tolist()
    if drawn:
        raise ConfigError(
            f"suppressed token ids {drawn} were sampled; the sampler needs the same suppress_tokens"
        )
    rows = keep.flatten().nonzero().squeeze(1)
    flat, ids = logits.flatten(0, 1), tokens.flatten()
    step = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    again = torch.is_grad_enabled() and logits.requires_grad and len(rows) > step
    parts = []
    for part in rows.split(step):
        # only what counts: a NaN of the padding would make the gradient NaN, though times 0
        chunk = (flat[part], ids[part], banned, temperature, with_entropy)
        parts.append(
            checkpoint(_chunk, *chunk, use_reentrant=False, preserve_rng_state=False)
            if again
            else _chunk(*chunk)
        )
    shape = tokens.shape
    found = [torch.cat(values) for values in zip(*parts, strict=True)]
    logp, entropy = (
        torch.zeros(ids.shape, device=logits.device).index_put((rows,), values).view(shape)
        for values in found
    )
    return logp, entropy


def _chunk(
    logits: Tensor, ids: Tensor, banned: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    scaled = logits.float() / temperature
    if len(banned):
        scaled = scaled.index_fill(1, banned, float("-inf"))
    norm = scaled.logsumexp(dim=1)
    entropy = torch.zeros_like(norm.detach())
    if with_entropy:
        with torch.no_grad():
            entropy = torch.special.entr((scaled - norm[:, None]).exp()).sum(dim=1)
    return scaled.gather(1, ids[:, None]).squeeze(1) - norm, entropy
