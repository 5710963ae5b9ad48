"""Features of a frozen backbone, computed once an image and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rali_zoo.data.checks import file_key
from rali_zoo.data.dataset import ImageDataset, collate
from rali_zoo.paths import atomic_path, cache_dir
from rali_zoo.types import Preprocess
from rali_zoo.views import View

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 256  # images in a cache file: what an interrupted run can lose at most
CPU_BATCH = 16  # a CPU gains nothing from more, and the maps of large images take gigabytes


def _chunk_key(paths: list[str], encoder_key: str) -> str:
    return hashlib.sha256("\n".join([encoder_key, *map(file_key, paths)]).encode()).hexdigest()[:32]


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

    A chunk of images is one safetensors file below the cache root, named by the encoder's weights,
    the view, and each image's path, size and time; it is written whole or not at all, so a run that
    is stopped goes on where it was.

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
    from safetensors.torch import load_file, save_file
    from torch.utils.data import DataLoader

    folder = cache_dir("features")
    key = f"{encoder_key}|{view}|{preprocess}"
    chunks = [frame.iloc[start : start + CHUNK] for start in range(0, len(frame), CHUNK)]
    files = [folder / f"{_chunk_key(c['path'].astype(str).tolist(), key)}.safetensors" for c in chunks]
    missing = [i for i, file in enumerate(files) if not file.exists()]
    for i in track(missing, description=f"features of {ref}", disable=not missing):
        loader = DataLoader(
            ImageDataset(ref, chunks[i], view, preprocess),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=collate,
        )
        parts = [encode(batch["image"]).float().cpu() for batch in loader]
        with atomic_path(files[i]) as temporary:
            save_file({"features": torch.cat(parts).contiguous()}, temporary)
    return torch.cat([load_file(file)["features"] for file in files])
