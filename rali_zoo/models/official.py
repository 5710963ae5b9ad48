"""The scorer that RALI's authors released, as a :class:`~rali_zoo.models.rali.RALINetwork`.

The release is a folder: ``best/`` (a CLIPModel of transformers with its image processor), ``pca.pkl``
(joblib, an IncrementalPCA), ``basis.npz`` (prototypes before fine-tuning) and ``ckpt.pt`` (all after it).

Which file counts: the authors build the model from ``best``, ``pca.pkl`` and ``basis.npz`` and then load
``ckpt.pt`` over it, strictly, so ``ckpt.pt`` has the last word on CLIP's weights, the PCA's scale and
components, prototypes, their scores and the temperature. Only the PCA's mean, which is no parameter there,
comes from ``pca.pkl``. Of ``best`` the config and the image processor are read, not the weights, which
``ckpt.pt`` replaces.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rali_zoo.backbones.hf import quiet
from rali_zoo.backbones.weights import first_line, from_library, load_strict, read_state
from rali_zoo.errors import CheckpointError
from rali_zoo.models.base import weights_follow
from rali_zoo.models.rali import RALINetwork
from rali_zoo.models.unpickle import read_pca
from rali_zoo.types import MOS_RANGE

CLIP, PCA, BASIS, CHECKPOINT = "best", "pca.pkl", "basis.npz", "ckpt.pt"
#: What the scoring takes of a release, as patterns of a hub download.
FILES = (f"{CLIP}/*.json", PCA, BASIS, CHECKPOINT)
_SCORER = ("pca_scale", "pca_components", "prototypes", "proto_scores", "logit_scale")


def is_official(folder: Path) -> bool:
    """Whether a folder is meant to hold the release: any one of its parts is there."""
    return any((folder / name).exists() for name in (CLIP, PCA, BASIS, CHECKPOINT))


def load_official(folder: Path) -> RALINetwork:
    """Read a release; the score is that of the authors' inference code.

    Args:
        folder: with ``best``, ``pca.pkl``, ``basis.npz`` and ``ckpt.pt``.

    Returns:
        The scorer in evaluation mode, with CLIP's vision tower alone. Scores are in [1, 5]; those of the
        authors' code are not bounded, so a warning is given if a prototype's score lies outside.

    Raises:
        CheckpointError: a file or entry that is missing, does not fit the others, or is not safe to read; a
            score scale other than [1, 5].
    """
    missing = [name for name in (CLIP, PCA, BASIS, CHECKPOINT) if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}; "
            f"the released RALI is {CLIP}/, {PCA}, {BASIS} and {CHECKPOINT}"
        )
    clip, head = _read_checkpoint(folder / CHECKPOINT, _read_mean(folder / PCA))
    _check_basis(folder / BASIS, head)
    _check_processor(folder / CLIP)
    count, components = head.prototypes.shape
    with weights_follow():
        network = RALINetwork(
            backbone=f"hf:local-dir:{folder / CLIP}",
            projector="none",
            prototypes=count,
            pca_dim=components,
            temperature=head.temperature,
        )
    network.settings["backbone"] = f"hf:local-dir:{CLIP}"  # a saved scorer names no folder of this machine
    if network.backbone.dim != len(head.mean):
        raise CheckpointError(
            f"{folder}: {CLIP} gives {network.backbone.dim} features, the PCA takes {len(head.mean)}"
        )
    load_strict(network.backbone.net, network.backbone.adapt_state(clip), f"{folder / CHECKPOINT} (clip.*)")
    network.backbone.mark_loaded()
    head.copy_to(network)
    return network.eval()


@dataclass(frozen=True)
class _Head:
    """The scorer part: mean, scale (D,), components (d, D), prototypes (K, d), scores (K,), temperature."""

    mean: Tensor
    scale: Tensor
    components: Tensor
    prototypes: Tensor
    scores: Tensor
    temperature: float

    @torch.no_grad()
    def copy_to(self, network: RALINetwork) -> None:
        """Fill a network of these sizes."""
        network.projection_mean.copy_(self.mean)
        network.projection_scale.copy_(self.scale)
        network.components.copy_(self.components)
        network.vectors.copy_(self.prototypes)
        network.scores.copy_(self.scores)
        network.log_temperature.fill_(self.temperature).log_()
        network.active.fill_(True)
        network.ready.fill_(True)


def _read_mean(path: Path) -> Tensor:
    attributes = read_pca(path)
    mean = attributes.get("mean_")
    if not isinstance(mean, np.ndarray) or mean.ndim != 1 or not np.isfinite(mean).all():
        raise CheckpointError(f"{path} has no mean_ of finite numbers: the PCA was never fitted")
    return torch.tensor(mean, dtype=torch.float32)


def _read_checkpoint(path: Path, mean: Tensor) -> tuple[dict[str, Tensor], _Head]:
    """CLIP's state dict and the head."""
    state = read_state(path)
    # Buffers of transformers before 4.31 that only count positions.
    state = {key: value for key, value in state.items() if not key.endswith(".position_ids")}
    clip = {key.removeprefix("clip."): value for key, value in state.items() if key.startswith("clip.")}
    wanted = [f"scorer.{name}" for name in _SCORER]
    missing = [name for name in wanted if name not in state]
    if not clip:
        missing.append("clip.*")
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}")
    unknown = [key for key in state if not key.startswith("clip.") and key not in wanted]
    if unknown:
        raise CheckpointError(f"{path} has entries that no released RALI has: {', '.join(unknown[:5])}")
    scale, components, prototypes, scores, logit_scale = (state[name].float() for name in wanted)
    ranks = [t.ndim for t in (scale, components, prototypes, scores, logit_scale.squeeze())]
    fits = (
        ranks == [1, 2, 2, 1, 0]
        and components.shape[1] == len(scale) == len(mean)
        and prototypes.shape == (len(scores), len(components))
        and len(scores) > 0
    )
    if not fits:
        shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in wanted)
        raise CheckpointError(f"{path}: shapes do not fit each other: {shapes}, mean of {PCA} {len(mean)}")
    for name in wanted:
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(f"{path}: {name} has values that are not finite")
    if (scale == 0).any():
        raise CheckpointError(f"{path}: scorer.pca_scale has zeros, by which embeddings would be divided")
    temperature = 1 / max(float(logit_scale), 1e-6)  # bounded as in the authors' code
    return clip, _Head(mean, scale.abs(), components, prototypes, scores, temperature)


def _check_basis(path: Path, head: _Head) -> None:
    """The prototypes before fine-tuning fit those after it and tell the scale: they are means of MOS."""
    try:
        with np.load(path, allow_pickle=False) as file:
            lacks = [name for name in ("vectors", "scores") if name not in file.files]
            vectors, scores = (None, None) if lacks else (file["vectors"], file["scores"])
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no npz file that can be read safely ({first_line(error)})"
        ) from None
    if vectors is None or scores is None:
        raise CheckpointError(f"{path} lacks {', '.join(lacks)}")
    if vectors.shape != tuple(head.prototypes.shape) or scores.shape != tuple(head.scores.shape):
        raise CheckpointError(
            f"{path}: vectors {vectors.shape} and scores {scores.shape} do not fit the prototypes of "
            f"{CHECKPOINT}, {tuple(head.prototypes.shape)}"
        )
    low, high = MOS_RANGE
    if not (np.isfinite(scores).all() and scores.min() >= low - 1e-3 and scores.max() <= high + 1e-3):
        raise CheckpointError(
            f"{path}: prototype scores from {scores.min():.4g} to {scores.max():.4g} are on another scale "
            f"than [{low:g}, {high:g}], the one of every score here"
        )
    least, most = float(head.scores.min()), float(head.scores.max())
    if least < low or most > high:
        warnings.warn(
            f"fine-tuning moved prototype scores to [{least:.4g}, {most:.4g}]; "
            f"scores are bounded to [{low:g}, {high:g}], those of the authors' code are not",
            stacklevel=2,
        )


def _check_processor(folder: Path) -> None:
    """Refuse image processors whose pixels our preprocessing would not reproduce."""
    with from_library(folder, "transformers' image processor", "a whole release", fetches=False), quiet():
        from transformers import AutoImageProcessor

        processor: Any = AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    short, crop = (dict(getattr(processor, name, None) or {}) for name in ("size", "crop_size"))
    switches = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    off = [name for name in switches if not getattr(processor, name, False)]
    side = short.get("shortest_edge")
    if off or side is None or (crop.get("height"), crop.get("width")) != (side, side):
        raise CheckpointError(
            f"{folder}: its image processor is not that of CLIP, short side to SIZE and crop of SIZE x SIZE "
            f"(size {short}, crop_size {crop}{', off: ' + ', '.join(off) if off else ''})"
        )
    if abs(float(processor.rescale_factor) * 255 - 1) > 1e-6:
        raise CheckpointError(f"{folder}: its image processor scales pixels by {processor.rescale_factor}")
