"""Which weights of a vision-language model learn: adapters, frozen towers, and the reference policy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.models.reasoner_options import Tuning
from rali_zoo.rl.vlm import VLM, vision_tower, with_model

if TYPE_CHECKING:
    from peft import PeftModel


def prepare(vlm: VLM, tuning: Tuning) -> VLM:
    """Freeze, adapt and checkpoint as asked; raises :class:`ConfigError` where nothing is left to learn."""
    model: Any = vlm.model
    if tuning.method == "lora":
        model = _with_adapter(model, tuning)
    elif tuning.freeze_vision:
        vision_tower(model)[1].requires_grad_(False)
    if tuning.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"tuning: nothing of '{vlm.uri}' learns under {tuning}")
    return with_model(vlm, model)


def _with_adapter(model: nn.Module, tuning: Tuning) -> PeftModel:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("peft", "reasoner") from error

    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=cast(Any, tuning.alpha),
        lora_dropout=tuning.dropout,
        target_modules="all-linear",
        # a regular expression over dotted names
        exclude_modules=rf"{vision_tower(model)[0]}\..*" if tuning.freeze_vision else None,
    )
    return cast("PeftModel", get_peft_model(cast(Any, model), config))


def merged(vlm: VLM) -> VLM:
    """The model with its adapter added to its weights, if it has one; a copy, so that training can go on."""
    if not hasattr(vlm.model, "merge_and_unload"):
        return vlm
    return with_model(vlm, cast(Any, copy.deepcopy(vlm.model)).merge_and_unload())


def still(module: nn.Module) -> None:
    """Switch dropout and batch statistics off, so that a policy in training is the one that was sampled."""
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm):
            part.eval()


class Reference:
    """The policy as it was when reinforcement began: the model without its adapter, or a frozen copy.

    Args:
        model: as it is now.
    """

    def __init__(self, model: nn.Module) -> None:
        self._copy: nn.Module | None = None
        if not hasattr(model, "disable_adapter"):
            self._copy = copy.deepcopy(model).eval().requires_grad_(False)

    @contextmanager
    def policy(self, model: nn.Module) -> Iterator[nn.Module]:
        """The reference, on the device and in the type of ``model``, without gradients."""
        with torch.no_grad():
            if self._copy is None:
                with cast(Any, model).disable_adapter():
                    yield model
                return
            like = next(model.parameters())
            yield self._copy.to(device=like.device, dtype=like.dtype)
