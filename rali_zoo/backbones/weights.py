"""Reading weights files without trusting them, and naming what was loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from rali_zoo.errors import CheckpointError, RaliZooError
from rali_zoo.uri import Uri

#: ``revision`` of a network whose weights were not loaded from anywhere.
RANDOM = "random"
_PROBE_SECONDS = 5.0
_SHOWN = 5


def weights_hash(module: nn.Module) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a state dict (names, types, shapes and bytes)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()[:12]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from a torch file with ``weights_only=True``.

    A torch file may hold the state dict itself or keep it under ``state_dict`` or ``model``.

    Raises:
        CheckpointError: not a file, not such a file, or one that would have to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the readers raise anything
        raise CheckpointError(f"{str(path)!r} is no safe weights file: {first_line(error)}") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{str(path)!r} holds no state dict (names to tensors)")
    return dict(loaded)


def load_strict(module: nn.Module, state: dict[str, Tensor], source: object) -> None:
    """Copy ``state`` into ``module``; every name and shape must agree.

    Raises:
        CheckpointError: lists the first names that are missing, unexpected, or of another shape.
    """
    own = module.state_dict()
    lists = {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
            for k in own
            if k in state and state[k].shape != own[k].shape
        ],
    }
    if any(lists.values()):
        found = "; ".join(
            f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"
            for what, names in lists.items()
            if names
        )
        raise CheckpointError(f"{source} does not fit this network. {found}")
    module.load_state_dict(state)


def first_line(error: BaseException) -> str:
    """Class and first line of an error's message, for use inside our own."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def or_random(uri: Uri, advice: str) -> str:
    """``advice``, and how to start from random weights unless that is what was typed."""
    if uri.options.get("pretrained") == "false":
        return advice
    return f"{advice}; '?pretrained=false' starts from random weights"


@contextmanager
def hub() -> Iterator[None]:
    """Only kept files of the hub of Hugging Face are looked at while it cannot be reached.

    Its client would ask for every file anew, several times each with growing pauses, and log each attempt.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    except Exception:  # errors of requests, httpx or httpx2, whichever it is built on
        return False
    return True


@contextmanager
def from_library(uri: object, library: str, advice: str, fetches: bool = True) -> Iterator[None]:
    """Turn a library's own loading errors into one that says what was tried and what to type next.

    Args:
        uri: what the user asked for.
        library: who was asked to load it.
        advice: how to give local files instead.
        fetches: whether the library may ask the hub of Hugging Face for files.

    Raises:
        CheckpointError: in place of network, file and format errors.
    """
    try:
        with hub() if fetches else nullcontext():
            yield
    except RaliZooError:
        raise
    except Exception as error:
        # Without a connection huggingface_hub raises errors of httpx or httpx2, whichever it is built on.
        expected = isinstance(error, OSError | RuntimeError | ValueError | KeyError)
        if not expected and not type(error).__module__.startswith("httpx"):
            raise
        raise CheckpointError(
            f"'{uri}': {library} could not fetch or read it ({first_line(error)}).\n"
            f"Without a network, download the files elsewhere and give {advice}."
        ) from error
