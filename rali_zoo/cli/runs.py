"""Run folders: each run has its own, and what an earlier one wrote is never replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from rali_zoo.errors import ConfigError

#: Tells the processes that a run starts where the first one writes.
_SHARED = "RALI_ZOO_RUN"
_WRITTEN = ("config.yaml", "results.json", "checkpoints")


def claim(wanted: Path) -> Path:
    """The folder of a new run: ``wanted``, or ``wanted-2`` and so on if an earlier run is there.

    An empty ``config.yaml`` marks it as taken, so that two that start at once do not share one.
    """
    if int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", 0))) > 0:
        return Path(os.environ.get(_SHARED, wanted))
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        if any((folder / name).exists() for name in _WRITTEN):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            (folder / "config.yaml").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.environ[_SHARED] = str(folder)
        return folder
    raise AssertionError("there is always a next number")


def release(folder: Path) -> None:
    """Give up the claim of a run that wrote nothing."""
    config = folder / "config.yaml"
    if config.is_file() and config.stat().st_size == 0:
        config.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """Hold a run folder while it is trained in; leftovers of a process that was killed are removed.

    Raises:
        ConfigError: another process trains in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            for half in (folder / "checkpoints").glob(".*.ckpt.*.tmp"):
                half.unlink(missing_ok=True)
            yield
    except Timeout:
        raise ConfigError(
            f"{folder} is being trained by another process; wait for it to end, or end it"
        ) from None
