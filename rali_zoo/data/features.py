"""Features of a frozen backbone, computed once an image and kept on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rali_zoo.data.checks import file_key
from rali_zoo.data.dataset import ImageDataset, collate
from rali_zoo.paths import atomic_path, cache_dir, text_sha256
from rali_zoo.types import Preprocess
from rali_zoo.views import View

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

CHUNK = 256  # images in a cache file: what an interrupted run can lose at most
CPU_BATCH = 16  # a CPU gains nothing from more, and the maps of large images take gigabytes


def encoded_at_once(batch_size: int, device: torch.device) -> int:
    """Images that an encoder on a device is given at once, where ``batch_size`` are asked for."""
    return min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size


@torch.inference_mode()
def cached_features(
    ref: str,
    frame: pd.DataFrame,
    encode: Callable[[Tensor], Tensor],
    encoder_key: str,
    view: View,
    preprocess: Preprocess,
    batch_size: int,
    num_workers: int,
) -> Tensor:
    """Features of every row of a table, from the cache where it has them.

    They are kept in files of at most :data:`CHUNK` images below the cache root, in a folder for each encoder's
    weights, view and preprocessing, found by each image's path, size and time: whatever head, seed, split or limit
    asks for an image later finds it there. A file is written whole or not at all, carries a checksum, and is made
    again when that does not hold.

    Args:
        ref: the data set's reference; shown with the progress bar.
        frame: columns id, path, mos, std.
        encode: (B, 3, H, W) or (B, V, 3, H, W) images in [0, 1] to (B, D) or (B, V, D).
        encoder_key: identifies the encoder's weights and its preprocessing.
        view: a deterministic view.
        preprocess: what the encoder expects.
        batch_size: images encoded at once.
        num_workers: processes that decode.

    Returns:
        (N, D) or (N, V, D) float32 on the CPU.
    """
    from rich.progress import track
    from safetensors.torch import save_file
    from torch.utils.data import DataLoader

    folder = cache_dir("features", _digest(f"{encoder_key}|{view}|{preprocess}"))
    names = [_digest(file_key(path)) for path in frame["path"].astype(str)]
    known = _stored(folder, set(names))
    missing = [i for i, name in enumerate(names) if name not in known]
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    for rows in track(chunks, description=f"features of {ref}", disable=not chunks):
        loader = DataLoader(
            ImageDataset(ref, frame.iloc[rows], view, preprocess),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=collate,
            generator=torch.Generator(),  # else a fit that finds nothing in the cache draws other numbers
        )
        made = torch.cat([_encoded(encode, batch["image"]) for batch in loader]).contiguous()
        mine = [names[i] for i in rows]
        facts = {"names": " ".join(mine), "sha256": _checksum(made)}
        with atomic_path(folder / f"{_digest(facts['names'])}.safetensors") as temporary:
            save_file({"features": made}, temporary, metadata=facts)
        known.update(zip(mine, made, strict=True))
    return torch.stack([known[name] for name in names])


def _encoded(encode: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Features of a batch on the CPU; images whose sizes differ go one by one."""
    parts = [one[None] for one in image] if isinstance(image, list) else [image]
    return torch.cat([encode(part).float().cpu() for part in parts])


def _digest(text: str) -> str:
    return text_sha256(text)[:32]


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().tobytes()).hexdigest()


def _stored(folder: Path, wanted: set[str]) -> dict[str, Tensor]:
    """Features by the digest of their image, of those that are wanted and whole."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as part:
                facts = part.metadata()
                names = facts["names"].split()
                if wanted.isdisjoint(names):
                    continue
                features = part.get_tensor("features")
            if len(names) != len(features) or _checksum(features) != facts["sha256"]:
                raise ValueError("its checksum does not hold")
        except Exception as error:  # whatever a damaged file makes of its reader
            log.warning("%s is damaged and made again (%s)", file, error)
            file.unlink(missing_ok=True)
            continue
        found.update((name, row) for name, row in zip(names, features, strict=True) if name in wanted)
    return found
