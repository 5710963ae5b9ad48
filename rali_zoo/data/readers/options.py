"""Values of a reference's options, ``mos_range=0,100``, ``higher_is_better=true``, and the card of such a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from rali_zoo.data.card import DatasetCard, Protocol
from rali_zoo.errors import UriError
from rali_zoo.types import MOS_RANGE

Number = TypeVar("Number", int, float)


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


def take_number(
    ref: str,
    options: Mapping[str, str],
    key: str,
    default: float,
    low: float,
    high: float,
    kind: Callable[[str], Number] = int,  # type: ignore[assignment]
) -> Number:
    """A number in a range; raises :class:`UriError` for anything else.

    Args:
        ref: the reference, for messages.
        options: those that were given.
        key: name of the option.
        default: where it is absent.
        low: smallest that is possible.
        high: largest that is possible.
        kind: ``int`` or ``float``.
    """
    text = options.get(key, str(default))
    try:
        value = kind(text)
    except ValueError:
        raise UriError(f"{ref!r}: {key}={text!r} is no {'whole ' * (kind is int)}number") from None
    if not low <= value <= high:
        raise UriError(f"{ref!r}: {key}={text} is out of range: {low:.10g} to {high:.10g}")
    return value


def unknown_card(
    ref: str,
    rows: int,
    mos_range: tuple[float, float] = MOS_RANGE,
    higher_is_better: bool = True,
    protocols: tuple[Protocol, ...] = ("whole",),
    content_disjoint: bool = False,
    paired: bool = False,
    url: str = "",
    layout: str = "",
    citation: str = "",
) -> DatasetCard:
    """The card of a table of anyone's making, of which only the reference and its options tell.

    Args:
        ref: scheme and path.
        rows: images with a score.
        mos_range: as in the card.
        higher_is_better: as in the card.
        protocols: that there are; the first is the default.
        content_disjoint: whether images share contents.
        paired: whether each image has a reference image.
        url: where such tables come from.
        layout: what is expected.
        citation: of whoever published them.
    """
    return DatasetCard(
        name=ref,
        title=Path(ref.partition(":")[2]).name,
        task="FR" if paired else "NR",
        domain="distorted" if paired else "authentic",
        n_images=max(rows, 1),
        mos_range=mos_range,
        higher_is_better=higher_is_better,
        protocols=protocols,
        default_protocol=protocols[0],
        content_disjoint=content_disjoint,
        licence="of the data set behind it" if url else "unknown",
        citation=citation,
        url=url,
        layout=layout,
    )
