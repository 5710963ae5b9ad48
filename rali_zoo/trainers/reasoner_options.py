"""Settings of the reasoner that belong together, each group one entry of a config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, cast

from rali_zoo.errors import ConfigError, UnknownNameError
from rali_zoo.vlm.model import Precision

#: What is imitated: descriptions alone (RACT's labels), with the verdict behind them, or the verdict alone.
Answers = Literal["text", "text-and-score", "score"]
T = TypeVar("T")


@dataclass(frozen=True)
class Tuning:
    """Which weights learn.

    Attributes:
        method: ``full`` = the weights themselves; the reference policy is then a frozen copy. ``lora`` = an
            adapter beside them; the reference is the model without it, and a checkpoint holds the adapter
            only.
        rank: of the adapter.
        alpha: of the adapter; its output is scaled by alpha / rank.
        dropout: share in [0, 1) of the adapter's inputs dropped in supervised training. Reinforcement drops
            nothing, so that the policy that learns is the one that was sampled.
        freeze_vision: leave the vision tower as it is.
        freeze_language: leave the language model as it is: RACT's "vision encoder only". With ``full`` the
            projector learns with the vision tower, of which it is a part in Qwen's models, and not in LLaVA's
            and FastVLM's. With ``lora`` the adapter is inside the tower alone, Qwen's projector included.
        gradient_checkpointing: compute activations twice instead of keeping them.
        precision: of the weights; ``bfloat16`` only with ``lora``, because steps of 1e-6 vanish in it.
    """

    method: Literal["full", "lora"] = "full"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    freeze_vision: bool = True
    freeze_language: bool = False
    gradient_checkpointing: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.freeze_vision and self.freeze_language:
            raise ConfigError(
                "tuning: freeze_vision and freeze_language together leave nothing to learn; to tune the eyes "
                "alone set freeze_vision=false"
            )
        if self.precision == "bfloat16" and self.method == "full":
            raise ConfigError(
                "tuning: precision=bfloat16 with method=full would lose small steps; keep float32 weights "
                "and give trainer.precision=bf16-mixed, or use method=lora"
            )
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"tuning: rank={self.rank} is at least 1 and dropout={self.dropout} in [0, 1)")


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn for reinforcement; their length is ``grpo.max_completion_length``.

    Attributes:
        rollouts: completions an image (G), at least 2.
        temperature: of the sampler; also divides the logits of the policy.
        updates: steps of the optimizer on each set of rollouts. 1 is strictly on-policy and leaves the
            optimisation to Lightning (accumulation, automatic mixed precision); more make the clipped ratio
            matter.
        engine: what samples in training and its validation: ``transformers``, or ``vllm`` on GPUs
            (:class:`rali_zoo.vlm.generation_vllm.VLLMEngine`, not yet run on one by us; ``rali-zoo[vllm]``).
        vllm_memory: share of the GPU's memory in (0, 1) for ``vllm``.
        vllm_length: longest prompt and completion together for ``vllm``, in tokens.
    """

    rollouts: int = 8
    temperature: float = 1.0
    updates: int = 1
    engine: Literal["transformers", "vllm"] = "transformers"
    vllm_memory: float = 0.3
    vllm_length: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.vllm_memory < 1 or self.vllm_length < 1:
            raise ConfigError(
                f"sampling: vllm_memory={self.vllm_memory} is in (0, 1) and vllm_length={self.vllm_length} "
                "above 0"
            )
        if self.rollouts < 2 or self.updates < 1 or self.temperature <= 0:
            raise ConfigError(
                f"sampling: rollouts={self.rollouts} is at least 2, updates={self.updates} at least 1, and "
                f"temperature={self.temperature} above 0"
            )


@dataclass(frozen=True)
class Schedule:
    """AdamW and its learning rate.

    Attributes:
        lr: the highest learning rate.
        lr_end: the one at the last step of ``linear``.
        shape: after warming up: ``linear`` to ``lr_end``, or half a ``cosine`` to 0.
        warmup: share of the steps in [0, 1) over which it rises from 0.
        weight_decay: of AdamW.
        max_grad_norm: norm to which gradients are clipped; 0 for no clipping.
    """

    lr: float = 1e-6
    lr_end: float = 0.0
    shape: Literal["linear", "cosine"] = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 <= self.lr_end <= self.lr or not 0 <= self.warmup < 1:
            raise ConfigError(
                f"schedule: lr={self.lr} is above 0, lr_end={self.lr_end} in [0, lr], and "
                f"warmup={self.warmup} in [0, 1)"
            )

    def factor(self, step: int, total: int) -> float:
        """The learning rate at a step of ``total``, divided by ``lr``."""
        ramp = int(total * self.warmup)
        if step < ramp:
            return (step + 1) / ramp
        progress = min(1.0, (step - ramp) / max(1, total - ramp))
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - progress * (1 - self.lr_end / self.lr)


def as_settings(kind: type[T], given: T | Mapping[str, Any] | None) -> T:
    """A group of settings: the defaults for ``None``, and a mapping from a checkpoint made one again.

    Raises:
        UnknownNameError: a mapping with a name that the group has not.
    """
    if given is None:
        return kind()
    if not isinstance(given, Mapping):
        return given
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise UnknownNameError(f"setting of {kind.__name__}", name, known)
    return kind(**given)


def plain(value: object) -> Any:
    """A group of settings as plain values, which a checkpoint can hold."""
    return asdict(cast(Any, value)) if is_dataclass(value) else value
