"""Which weights of a vision-language model learn: adapters, frozen towers, and the reference policy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from rali_zoo.errors import ConfigError
from rali_zoo.trainers.reasoner_options import Tuning
from rali_zoo.vlm.adapter import Adapter, with_adapter
from rali_zoo.vlm.model import VLM, projector, vision_tower, with_model
from rali_zoo.vlm.sharding import is_sharded, let_go, shard

if TYPE_CHECKING:
    from lightning import Trainer
    from torch.distributed.device_mesh import DeviceMesh


def adapter_of(tuning: Tuning) -> Adapter:
    """The adapter that ``method: lora`` asks for."""
    return Adapter(tuning.rank, tuning.alpha, tuning.dropout, tuning.freeze_vision, tuning.freeze_language)


def prepare(vlm: VLM, tuning: Tuning) -> VLM:
    """Freeze, adapt and checkpoint as asked; raises :class:`ConfigError` where nothing is left to learn."""
    model: Any = vlm.model
    if tuning.method == "lora":
        model = with_adapter(model, adapter_of(tuning))
    elif tuning.freeze_vision:
        vision_tower(model)[1].requires_grad_(False)
    elif tuning.freeze_language:
        model.requires_grad_(False)
        for part in (vision_tower(model)[1], projector(model)):
            if part is not None:
                part.requires_grad_(True)
    if tuning.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"tuning: nothing of '{vlm.uri}' learns under {tuning}")
    return with_model(vlm, model)


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
        #: the frozen copy; ``None`` where the adapter is switched off instead
        self.copy: nn.Module | None = None
        if not hasattr(model, "disable_adapter"):
            self.copy = copy.deepcopy(model).eval().requires_grad_(False)

    @contextmanager
    def policy(self, model: nn.Module) -> Iterator[nn.Module]:
        """The reference, on the device and in the type of ``model``, without gradients."""
        with torch.no_grad():
            if self.copy is None:
                # peft takes requires_grad off and puts it back: both on slices, or both on whole weights
                let_go(model)
                with cast(Any, model).disable_adapter():
                    yield model
                    let_go(model)
                return
            like = next(model.parameters())
            if not is_sharded(self.copy):
                self.copy.to(device=like.device, dtype=like.dtype)
            yield self.copy


def spread(policy: nn.Module, reference: Reference | None, trainer: Trainer, mesh: DeviceMesh) -> None:
    """Spread a policy and its reference over the processes of Lightning's ``ModelParallelStrategy``.

    Weights are gathered in bfloat16 where ``trainer.precision`` is ``bf16-mixed``; their slices stay float32.
    A run is to be resumed under the strategy that it began with: where some weights are frozen, Lightning 2.6
    gives the moments of an optimizer that was not spread to the wrong weights.

    Args:
        policy: with its adapter, if it has one.
        reference: of the same process.
        trainer: whose strategy and precision count.
        mesh: of the strategy, with dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ConfigError: a strategy that splits layers too, or that writes checkpoints nothing else can read.
    """
    settings = "trainer.strategy.init_args"
    if mesh["tensor_parallel"].size() > 1:
        raise ConfigError(
            f"no layer of a Reasoner is split; set {settings}.tensor_parallel_size=1 and "
            f"{settings}.data_parallel_size={mesh.size()}"
        )
    if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
        raise ConfigError(
            "test, score and describe read checkpoints of one file; set "
            f"{settings}.save_distributed_checkpoint=false"
        )
    half = trainer.precision == "bf16-mixed"
    for model in (policy, reference.copy if reference is not None else None):
        if model is not None:
            shard(model, mesh["data_parallel"], half)
