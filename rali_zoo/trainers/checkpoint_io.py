"""Checkpoints that a kill leaves whole: the last one, or the one before it."""

from __future__ import annotations

import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.plugins.io import TorchCheckpointIO

from rali_zoo.errors import ConfigError
from rali_zoo.outputs import explained
from rali_zoo.paths import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, then renames.

    Lightning's own writes to the folder for temporary files and moves from there: between file systems that
    is a copy, and a kill during it leaves half a checkpoint where the last whole one was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: _PATH, storage_options: object | None = None
    ) -> None:
        """Write a checkpoint; the file at ``path`` is the old one or the new one at any moment.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason of the system.
        """
        if storage_options is not None or "://" in str(path):
            raise ConfigError(f"checkpoints are written to folders of this machine, not to {path}")
        # torch's own writing to a path turns a full disk into "unexpected pos 704 vs 598"
        with explained(path), atomic_path(str(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # and so does its closing of an archive that found no room
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
