"""Which weights of a vision-language model learn: all, some, or a low-rank adapter (LoRA) beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import nn

from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.vlm.model import VLM, Precision, projector, vision_encoder, with_model

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Adapter:
    """Where an adapter is, and how large.

    Attributes:
        rank: of each of its products.
        alpha: its output is scaled by alpha / rank.
        dropout: share in [0, 1) of its inputs dropped in training.
        freeze_vision: none in the vision encoder.
        freeze_language: none but in the vision encoder.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    freeze_vision: bool = True
    freeze_language: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"tuning: rank={self.rank} is at least 1, alpha={self.alpha} a number above 0, and "
                f"dropout={self.dropout} in [0, 1)"
            )


@dataclass(frozen=True)
class Tuning(Adapter):
    """Which weights learn.

    Attributes:
        method: ``full`` = the weights themselves; ``lora`` = an adapter beside them, and a checkpoint holds the
            adapter only. In reinforcement the reference is a frozen copy for ``full``, and the model without its
            adapter for ``lora``.
        rank: of the adapter.
        alpha: of the adapter; its output is scaled by alpha / rank.
        dropout: share in [0, 1) of the adapter's inputs dropped in supervised training. Reinforcement drops
            nothing, so that the policy that learns is the one that was sampled.
        freeze_vision: leave the vision encoder as it is; a pretrained one of ``rali:vlm-tiny`` stays so anyway, and
            its projector alone learns.
        freeze_language: leave the language model as it is: RACT's "vision encoder only". With ``full`` the
            projector learns with the vision encoder, of which it is a part in Qwen's models, and not in LLaVA's
            and FastVLM's. With ``lora`` the adapter is inside the encoder alone, Qwen's projector included.
        gradient_checkpointing: compute activations twice instead of keeping them.
        precision: of the weights; ``bfloat16`` only with ``lora``, because steps of 1e-6 vanish in it.
    """

    method: Literal["full", "lora"] = "full"
    gradient_checkpointing: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze_vision and self.freeze_language:
            raise ConfigError(
                "tuning: freeze_vision and freeze_language together leave nothing to learn; to tune the vision "
                "encoder alone set freeze_vision=false"
            )
        if self.precision == "bfloat16" and self.method == "full":
            raise ConfigError(
                "tuning: precision=bfloat16 with method=full would lose small steps; keep float32 weights "
                "and give trainer.precision=bf16-mixed, or use method=lora"
            )

    @property
    def adapter(self) -> Adapter:
        """The adapter that ``method: lora`` asks for."""
        return Adapter(**{f.name: getattr(self, f.name) for f in fields(Adapter)})


def with_adapter(model: nn.Module, adapter: Adapter) -> PeftModel:
    """The model with a new adapter.

    Raises:
        ConfigError: the vision encoder has no linear layers to put one beside.
        MissingExtraError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("peft", "reasoner") from error

    name, encoder = vision_encoder(model)
    targets: str | list[str] = "all-linear"
    if adapter.freeze_language:
        targets = [f"{name}.{part}" for part, m in encoder.named_modules() if isinstance(m, nn.Linear)]
        if not targets:
            raise ConfigError(
                f"tuning: '{name}' has no linear layers for an adapter; use method=full, or "
                "freeze_language=false"
            )
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=cast(Any, adapter.alpha),
        lora_dropout=adapter.dropout,
        target_modules=targets,
        # a regular expression over dotted names
        exclude_modules=rf"{name}\..*" if adapter.freeze_vision else None,
    )
    return cast("PeftModel", get_peft_model(cast(Any, model), config))


def prepare(vlm: VLM, tuning: Tuning) -> VLM:
    """Freeze, adapt and checkpoint as asked; raises :class:`ConfigError` where nothing is left to learn."""
    model: Any = vlm.model
    if tuning.method == "lora":
        model = with_adapter(model, tuning)
    elif tuning.freeze_vision:
        vision_encoder(model)[1].requires_grad_(False)
    elif tuning.freeze_language:
        model.requires_grad_(False)
        for part in (vision_encoder(model)[1], projector(model)):
            if part is not None:
                part.requires_grad_(True)
    for part in model.modules():
        if getattr(part, "is_fixed", False):
            part.requires_grad_(False)
    if tuning.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"tuning: nothing of '{vlm.uri}' learns under {tuning}")
    return with_model(vlm, model)


def freeze_dropout_and_norm(model: nn.Module, but: nn.Module | None = None) -> None:
    """Switch off whatever makes training mode compute something else: every kind of dropout, batch statistics.

    Attention, layer and path dropout are no modules of their own: their owners ask whether they are in training
    mode, so all modules leave it but those whom gradient checkpointing wants in it, and these lose their rates.

    Args:
        model: whose weights go on learning as before.
        but: a part of it that is left in the mode it has.
    """
    left = set() if but is None else set(but.modules())
    for part in model.modules():
        if part in left:
            continue
        part.training = bool(getattr(part, "gradient_checkpointing", False))
        if part.training:
            for name, value in vars(part).items():
                if "drop" in name and isinstance(value, float):
                    setattr(part, name, 0.0)
