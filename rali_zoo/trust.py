"""What a file that somebody else wrote may not name; docs/security.md states where this is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

# A shell command, a URL, or a path that does not lie below the working directory, anywhere in a reference.
_OUTSIDE = re.compile(r"pipe:|://|(^|[:=&,{\[])\s*([/~\\]|[A-Za-z]:[\\/])|(^|[/\\:=&,{\[])\.\.([/\\]|$)")


def names_outside(text: str) -> bool:
    """Whether a text names a command, an address, or a path outside of the working directory."""
    return _OUTSIDE.search(unquote(text)) is not None


def texts(value: object) -> Iterator[str]:
    """All texts inside nested settings."""
    if isinstance(value, str | Path):
        yield str(value)
    for inner in _inner(value):
        yield from texts(inner)


def class_paths(value: object) -> Iterator[str]:
    """All classes that nested settings would have built."""
    if isinstance(value, Mapping) and "class_path" in value:
        yield str(value["class_path"])
    for inner in _inner(value):
        yield from class_paths(inner)


def _inner(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []
