"""Which images of a table can be decoded: looked at once, remembered, never guessed."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data.images import load_image
from rali_zoo.data.video import is_video, sample_frames
from rali_zoo.errors import ImageDecodeError, ImageUnavailableError
from rali_zoo.paths import atomic_path, cache_dir, text_sha256

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_REVISION = "2"  #: raise it whenever another image is refused, or one is no longer
_DECODERS = ("pillow", "pillow-heif", "av")


def file_key(path: str) -> str:
    """Identity of a file's content without reading it: path, size and modification time."""
    try:
        stat = os.stat(path)
    except OSError as error:
        return f"{path}|{error.strerror}"
    return f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"


def _versions() -> str:
    found = []
    for name in _DECODERS:
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("none")
    return "|".join([_REVISION, *found])


def _try(path: str) -> ImageDecodeError | None:
    try:
        sample_frames(path) if is_video(path) else load_image(path)
    except ImageDecodeError as error:
        return error
    return None


def undecodable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose image cannot be decoded, with the column ``reason``.

    Every image is decoded once; what was found is kept by path, size and modification time of the images and by
    the decoders' versions, unless this machine failed and not an image.
    """
    paths = frame["path"].astype(str).tolist()
    keys = [_versions(), *map(file_key, paths)]
    digest = text_sha256("\n".join(keys))[:24]
    memory = cache_dir("checked") / f"{digest}.json"
    reasons = _remembered(memory, len(paths))
    if reasons is None:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # decoding frees the GIL
            found = list(pool.map(_try, paths))
        reasons = {i: str(error) for i, error in enumerate(found) if error is not None}
        if not any(isinstance(error, ImageUnavailableError) for error in found):
            with atomic_path(memory) as temporary:
                temporary.write_text(json.dumps(reasons))
    bad = frame.iloc[list(reasons)].copy()
    bad["reason"] = list(reasons.values())
    return bad


def _remembered(memory: Path, count: int) -> dict[int, str] | None:
    """Reasons by position, if they were written and are whole."""
    try:
        reasons = {int(i): reason for i, reason in json.loads(memory.read_text()).items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        log.warning("%s is damaged; the images are looked at again", memory)
        return None
    whole = all(0 <= i < count and isinstance(reason, str) for i, reason in reasons.items())
    return reasons if whole else None
