"""Which images of a table can be decoded: looked at once, remembered, never guessed."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rali_zoo.data.images import load_image
from rali_zoo.data.video import is_video, sample_frames
from rali_zoo.errors import ImageDecodeError
from rali_zoo.paths import atomic_path, cache_dir

if TYPE_CHECKING:
    import pandas as pd


def file_key(path: str) -> str:
    """Identity of a file's content without reading it: path, size and modification time."""
    try:
        stat = os.stat(path)
    except OSError as error:
        return f"{path}|{error.strerror}"
    return f"{os.path.abspath(path)}|{stat.st_size}|{stat.st_mtime_ns}"


def reason_unreadable(path: str) -> str | None:
    """Why an image cannot be decoded; ``None`` when it can."""
    try:
        sample_frames(path) if is_video(path) else load_image(path)
    except ImageDecodeError as error:
        return str(error)
    return None


def unreadable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table whose image cannot be decoded, with the column ``reason``.

    Every image is decoded once; the verdicts are cached by path, size and modification time.
    """
    paths = frame["path"].astype(str).tolist()
    keys = [file_key(p) for p in paths]
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:24]
    memory = cache_dir("checked") / f"{digest}.json"
    if memory.exists():
        reasons = json.loads(memory.read_text())
    else:
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # decoding frees the GIL
            found = list(pool.map(reason_unreadable, paths))
        reasons = {str(i): reason for i, reason in enumerate(found) if reason is not None}
        with atomic_path(memory) as temporary:
            temporary.write_text(json.dumps(reasons))
    bad = frame.iloc[[int(i) for i in reasons]].copy()
    bad["reason"] = list(reasons.values())
    return bad
