"""Loading networks whose weights are fetched by their library: soon, wholly, or not at all."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pickle import UnpicklingError
from traceback import walk_tb

from rali_zoo.backbones.weights import first_line, hub
from rali_zoo.errors import (
    CheckpointError,
    ConfigError,
    MissingExtraError,
    RaliZooError,
    WeightsUnavailableError,
)

_SILENCE_SECONDS = 20.0  # a connection that says nothing for so long is given up
_REPOSITORY = ("repo_id", "path_or_repo_id", "pretrained_model_name_or_path", "image_processor_path")
_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def fetching(ref: str, extra: str, trust_pickle: bool = False) -> Iterator[None]:
    """Load a network of somebody else's in the block.

    Files that are kept on this machine are used. What is missing is fetched; without a network that fails at
    once, where the hub of Hugging Face would be tried for minutes, file after file. Weights files that would
    run code when they are read are refused. What the library prints goes to stderr.

    Args:
        ref: what is loaded.
        extra: optional extra of this package that the library belongs to.
        trust_pickle: read such files all the same.

    Raises:
        WeightsUnavailableError: a file is neither here nor to be had.
        CheckpointError: a file that would run code.
        MissingExtraError: the library wants another one that is not installed.
        ConfigError: the network cannot be made on this machine for another reason.
    """
    try:
        with _weights_only(not trust_pickle), _impatient(), hub(), redirect_stdout(sys.stderr):
            yield
    except RaliZooError:
        raise
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or str(error), extra) from error
    except Exception as error:
        chain = list(_chain(error))
        if any(isinstance(e, UnpicklingError) for e in chain):
            raise CheckpointError(
                f"{ref!r}: its weights are a pickle, which runs code of whoever wrote it when it is read. "
                f"If you trust them, write {ref}?trust_pickle=true"
            ) from error
        if any(isinstance(e, OSError) or type(e).__module__.startswith("httpx") for e in chain):
            raise WeightsUnavailableError(ref, asked_file(chain), first_line(error)) from error
        raise ConfigError(f"{ref!r} cannot be loaded on this machine: {first_line(error)}") from error


@contextmanager
def _weights_only(wanted: bool) -> Iterator[None]:
    # pyiqa and piq pass weights_only=False themselves; only the environment stands above that.
    before = os.environ.get(_SAFE)
    if wanted:
        os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SAFE, None)
        else:
            os.environ[_SAFE] = before


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, …; deepest last."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def asked_file(chain: list[BaseException]) -> str:
    """Address of the file that was asked for when a library gave up.

    Downloaders do not say it in their errors; it stands in the variables of the functions that failed.
    """
    frames = [frame.f_locals for error in chain for frame, _ in walk_tb(error.__traceback__)]
    for known in reversed(frames):
        for key in ("url", "uri"):
            value = str(known.get(key, ""))
            if value.startswith(("http://", "https://")):
                return value
    for known in reversed(frames):
        place = next((known[k] for k in _REPOSITORY if known.get(k)), None)
        if isinstance(place, str):
            names = known.get("filename") or known.get("full_filenames") or known.get("filenames") or ""
            name = str(names if isinstance(names, str) else next(iter(names), ""))
            return f"huggingface.co/{place}" + (f"/{name}" if name else "")
    return "a file that its library does not name"
