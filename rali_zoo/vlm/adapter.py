"""Low-rank adapters (LoRA) beside the weights of a vision-language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.vlm.model import vision_tower

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

    name, tower = vision_tower(model)
    targets: str | list[str] = "all-linear"
    if adapter.freeze_language:
        targets = [f"{name}.{part}" for part, layer in tower.named_modules() if isinstance(layer, nn.Linear)]
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
