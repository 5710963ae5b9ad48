"""Values of a reference's options: ``mos_range=0,100``, ``higher_is_better=true``."""

from __future__ import annotations

from rali_zoo.errors import UriError


def number_pair(ref: str, options: dict[str, str], key: str) -> tuple[float, float]:
    """Two numbers joined by a comma; raises :class:`UriError` when the option is absent or something else."""
    if key not in options:
        raise UriError(f"{ref!r}: the scale is never guessed from the scores; say it, e.g. '{ref}?{key}=1,5'")
    try:
        low, high = (float(v) for v in options[key].split(","))
    except ValueError:
        raise UriError(f"{ref!r}: {key}={options[key]!r} is not two numbers such as {key}=0,100") from None
    if not low < high:
        raise UriError(f"{ref!r}: {key}={options[key]!r}: the first number must be the smaller one")
    return low, high


def truth(ref: str, options: dict[str, str], key: str, default: bool) -> bool:
    """``true`` or ``false``; raises :class:`UriError` for anything else.

    Args:
        ref: the reference, for messages.
        options: those that were given.
        key: name of the option.
        default: where it is absent.
    """
    value = options.get(key, str(default)).lower()
    if value not in ("true", "false"):
        raise UriError(f"{ref!r}: {key}={options[key]!r}; write {key}=true or {key}=false")
    return value == "true"
