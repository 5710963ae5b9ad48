"""Weights sharded over processes by torch's FSDP2, so that a model need not fit on one GPU with its optimizer.

Every process holds a slice of each weight, gathers the weights of a block when it computes with them, and
gives them up again. Sampling would gather everything again for each token, and processes whose texts end
earlier would leave the others waiting: :func:`gathered` keeps the weights whole while text is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule


def without_adapter(model: nn.Module) -> nn.Module:
    """The transformers model inside a peft one, adapter layers and all; any other model as it is."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else cast(nn.Module, inner())


def shard(model: nn.Module, mesh: DeviceMesh, half: bool) -> None:
    """Shard the weights of a model, in place: one group a block of its encoders, one for the rest.

    Args:
        model: of transformers, or of peft around one.
        mesh: the processes, in one dimension.
        half: gather and compute in bfloat16; the slices, gradients' sums and the optimizer keep their type.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    policy = MixedPrecisionPolicy()
    if half:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    root = without_adapter(model)
    for block in _blocks(root):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    register_fsdp_forward_method(root, "generate")  # which looks at the image before the first forward pass


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard` was applied to a model."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(without_adapter(model), FSDPModule)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """From the first forward pass inside it to its end, a sharded model's weights stay whole.

    All processes have to enter it, and to run at least one forward pass inside. After their first one they
    need not keep step. It takes the memory of the whole model; a model that is not sharded is left alone.
    """
    if not is_sharded(model):
        yield
        return
    root = without_adapter(model)
    _keep(root, True)
    try:
        yield
    finally:
        reshard(model)
        _keep(root, False)


def reshard(model: nn.Module) -> None:
    """Give gathered weights up again; what is set on one while it is gathered is not set on its slices."""
    for part in _sharded_parts(without_adapter(model)):
        part.reshard()


def whole(weight: Tensor) -> Tensor:
    """A weight of any shape, put together where it is sharded; all processes have to ask for it."""
    from torch.distributed.tensor import DTensor

    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _keep(root: nn.Module, keep: bool) -> None:
    for part in _sharded_parts(root):
        part.set_reshard_after_forward(not keep and part is not root, recurse=False)


def _sharded_parts(root: nn.Module) -> list[FSDPModule]:
    from torch.distributed.fsdp import FSDPModule

    return [part for part in root.modules() if isinstance(part, FSDPModule)]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of the outermost lists of modules: the layers of every encoder and decoder."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
