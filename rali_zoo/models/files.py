"""Trained modules as files: Lightning checkpoints read safely, and scorers as one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.errors import CheckpointError, UnknownNameError
from rali_zoo.paths import SHIPPED, atomic_path

if TYPE_CHECKING:
    from rali_zoo.trainers.base import IQAModule

SCORER_FILE = "model.safetensors"


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a Lightning checkpoint without running code from it.

    Raises:
        CheckpointError: missing, unreadable, or not written by rali_zoo.
    """
    import torch

    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}; fit writes them to RUN/checkpoints/")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, and all mean the same to the user
        raise CheckpointError(f"{path} is no checkpoint that can be read safely: {error}") from error
    if not isinstance(checkpoint, dict) or "rali_zoo" not in checkpoint:
        raise CheckpointError(f"{path} was not written by rali_zoo")
    return checkpoint


def load_checkpoint(path: str) -> IQAModule:
    """A trained module, of the class that wrote it.

    Args:
        path: of a Lightning checkpoint or of a scorer file (.safetensors), or the name of a scorer that the
            package carries.
    """
    if path in SHIPPED or path.endswith(".safetensors"):
        file = SHIPPED.get(path, Path(path))
        return build(*read_scorer(file), str(file))
    checkpoint = read_checkpoint(path)
    header = {"class": checkpoint["rali_zoo"]["class"], "extra": checkpoint["rali_zoo"]}
    return build({**header, "hparams": dict(checkpoint["hyper_parameters"])}, checkpoint["state_dict"], path)


def build(header: dict[str, Any], weights: dict[str, Any], source: str) -> IQAModule:
    """Make a module of what was saved of it; its pretrained weights and text encoder are not asked for.

    Args:
        header: ``class``, ``hparams``, ``extra`` and, for a transformers backbone, its recipe ``backbone``.
        weights: state dict.
        source: where they come from, for messages.

    Raises:
        CheckpointError: an unknown class, or weights that do not fit the settings.
    """
    import rali_zoo.trainers as models
    from rali_zoo.backbones.hf import rebuilding
    from rali_zoo.trainers.base import weights_follow

    known = {name: getattr(models, name) for name in models.__all__ if name != "IQAModule"}
    if header["class"] not in known:
        raise CheckpointError(f"{source}: {UnknownNameError('model class', header['class'], known)}")
    hparams = {k: v for k, v in header["hparams"].items() if not k.startswith("_")}
    if "text_lr" in hparams:
        hparams["text_lr"] = 0.0  # the text encoder is a teacher: a scorer is built without it
    with weights_follow(), rebuilding(header.get("backbone")):
        module: IQAModule = known[header["class"]](**hparams)
    try:
        # A text tower that was trained too is no part of the scorer.
        module.load_state_dict({k: v for k, v in weights.items() if not k.startswith("text_tower.")})
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not fit its own settings: {error}") from None
    module.load_extra_state(header["extra"])
    return module.eval()


def read_scorer(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and weights of a scorer file.

    Raises:
        CheckpointError: missing, not safetensors, or without our header.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"no scorer at {path}; expected a {SCORER_FILE} written by rali_zoo")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("rali_zoo", "null"))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    if header is None:
        raise CheckpointError(f"{path} has no rali_zoo header: it was not written by rali_zoo")
    return header, weights


def save_scorer(module: IQAModule, path: str | Path) -> Path:
    """Write a module as one safetensors file: weights, settings, view, training sets, descriptions.

    The text encoder is not in it; a file that is half written never has the final name.
    """
    from safetensors.torch import save_file

    from rali_zoo.backbones.hf import HFBackbone

    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    header = {
        "class": type(module).__name__,
        "hparams": dict(module.hparams),
        "extra": module.extra_state(),
    }
    backbone = getattr(module, "backbone", None)
    if isinstance(backbone, HFBackbone):  # else its config would be asked for where the weights came from
        header["backbone"] = backbone.recipe()
    path = Path(path)
    with atomic_path(path) as temporary:
        weights = {k: v.clone() for k, v in state.items() if not k.startswith("text_tower.")}
        save_file(weights, str(temporary), metadata={"rali_zoo": json.dumps(header)})
    return path
