"""Where things are kept on disk, what identifies them, and how a file is written so that it is whole or absent."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rali_zoo.errors import ConfigError

_WEIGHTS = Path(__file__).parent / "weights"
#: Scorers that the package carries, by their names in the zoo; those named so were trained on synthetic labels only.
SHIPPED = {
    "photo": _WEIGHTS / "photo.safetensors",
    "rali-tiny-synthetic": _WEIGHTS / "rali_tiny_synthetic.safetensors",
    "regression-tiny-synthetic": _WEIGHTS / "regression_tiny_synthetic.safetensors",
    "reasoner-tiny-synthetic": _WEIGHTS / "reasoner_tiny_synthetic.safetensors",
}


def cache_dir(*parts: str) -> Path:
    """Folder below the cache root (``$RALI_ZOO_CACHE``, else ``~/.cache/rali_zoo``); made on use.

    Raises:
        ConfigError: the folder cannot be made.
    """
    root = os.environ.get("RALI_ZOO_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rali_zoo"
    path = base.joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the cache {path} cannot be made ({error.strerror}): set RALI_ZOO_CACHE to a folder that can be written"
        ) from None
    return path


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; it becomes ``target`` only if the block succeeds."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; raises :class:`OSError` if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, 64 hexadecimal digits; names of files that are no UTF-8 keep their bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
