"""Errors that say what was asked, what is valid, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaliZooError(Exception):
    """Base of every error a user can cause; the command line prints it without a traceback."""


def near_miss(asked: str, known: Iterable[str], limit: int = 12) -> str:
    """Sentence naming the closest valid spelling of ``asked`` and the (first) valid ones."""
    names = sorted(known)
    close = difflib.get_close_matches(asked.lower(), {n.lower(): n for n in names}, n=1, cutoff=0.5)
    by_lower = {n.lower(): n for n in names}
    hint = f"Did you mean {by_lower[close[0]]!r}? " if close else ""
    shown = ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
    return f"{hint}Known: {shown or 'none'}."


class UnknownNameError(RaliZooError, LookupError):
    """A name that is not in its table.

    Args:
        kind: what was looked up, in the singular (``"data set"``).
        asked: the name the user typed.
        known: the valid names.
    """

    def __init__(self, kind: str, asked: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {asked!r}. {near_miss(asked, known)}")


class UriError(RaliZooError, ValueError):
    """A reference (``scheme:id?option=value``) that cannot be read."""


class ConfigError(RaliZooError, ValueError):
    """A combination of settings that cannot work; the message says which one to change."""


class UsageError(ConfigError):
    """A command line that cannot be read; the command's exit status is 2."""


class NothingMeasuredError(RaliZooError):
    """A test or validation in which no image has a score; the command's exit status is 1."""


class PluginError(RaliZooError, ImportError):
    """Something a package adds to this one cannot be used.

    Args:
        giver: what added it.
        reason: why it cannot be used.
    """

    def __init__(self, giver: str, reason: str) -> None:
        super().__init__(f"{giver} added a plug-in that cannot be used: {reason}. Repair or uninstall it")


class MissingExtraError(RaliZooError, ImportError):
    """A library of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package!r} is needed here and is not installed: pip install 'rali-zoo[{extra}]'")


class DatasetNotFoundError(RaliZooError, FileNotFoundError):
    """The folder of a data set, or a file in it, is missing.

    Args:
        name: the data set's name.
        missing: the path that was looked for.
        layout: the folder layout the reader expects.
        url: where to get the data.
    """

    def __init__(self, name: str, missing: object, layout: str, url: str) -> None:
        super().__init__(
            f"data set {name!r}: {missing} does not exist.\nExpected layout:\n{layout}\n"
            f"Get it from {url}, then give its parent folder as data.root (or '{name}?root=FOLDER')."
        )


class ScoreTableError(RaliZooError, ValueError):
    """A score file that cannot be trusted: missing columns, bad numbers, rows without an image."""


class ImageDecodeError(RaliZooError, ValueError):
    """One image cannot be decoded; the message is the reason, free of object addresses."""


class ImageUnavailableError(ImageDecodeError):
    """An image cannot be decoded here and now (a missing library, no memory, a failing disk).

    Nothing that is kept may say so of the image: the next run can be luckier.
    """


class CheckpointError(RaliZooError, ValueError):
    """A model file that is missing, incomplete, or not one of ours."""


class WeightsUnavailableError(CheckpointError):
    """Weights that a metric needs are neither on this machine nor to be had.

    Args:
        model: what was to be loaded.
        file: what its library asked for.
        reason: how that failed.
    """

    def __init__(self, model: str, file: str, reason: str) -> None:
        super().__init__(
            f"{model!r} needs {file}, which is not on this machine and could not be fetched ({reason}). "
            "Nothing is scored with random weights. Load it once where there is a network, then copy the "
            "caches of torch ($TORCH_HOME, ~/.cache/torch) and Hugging Face ($HF_HOME, "
            "~/.cache/huggingface) here."
        )
