"""The grammar of references: ``scheme:id?option=value&option=value``. No heavy import here.

The id is opaque: it is handed to the library that owns the scheme as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from rali_zoo.errors import UriError, near_miss

# Two characters at least, so that a Windows drive letter is no scheme.
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9_.+-]+):(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Uri:
    """A parsed reference.

    Attributes:
        scheme: the part before the first ``:``; empty for a bare name.
        id: the part after it, without the options.
        options: what stands after ``?``.
    """

    scheme: str
    id: str
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        head = f"{self.scheme}:{self.id}" if self.scheme else self.id
        return head + (f"?{urlencode(self.options, safe='/,:')}" if self.options else "")

    def take(self, allowed: Iterable[str]) -> dict[str, str]:
        """The options, after checking that each is one of ``allowed``; raises :class:`UriError`."""
        names = list(allowed)
        for key in self.options:
            if key not in names:
                raise UriError(f"{str(self)!r} has no option {key!r}. {near_miss(key, names)}")
        return dict(self.options)


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Split ``"id?a=1&b=2"`` into ``("id", {"a": "1", "b": "2"})``."""
    head, mark, query = text.partition("?")
    if not mark:
        return head, {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise UriError(f"{text!r}: after '?' comes option=value, joined by '&'") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        raise UriError(f"{text!r} gives an option twice")
    return head, options


def without_option(text: str, key: str) -> str:
    """The reference without one of its options, which need not be there."""
    head, options = split_options(text)
    options.pop(key, None)
    return str(Uri("", head, options))


def parse_uri(text: str, schemes: Iterable[str], kind: str, bare: Iterable[str] = ()) -> Uri:
    """Parse a reference and refuse to guess.

    Args:
        text: what the user typed.
        schemes: the valid schemes.
        kind: what the reference names, in the singular; used in messages.
        bare: names that are valid without a scheme.

    Raises:
        UriError: unknown scheme, empty id, or a bare name that needs a scheme.
    """
    valid, names = sorted(schemes), sorted(bare)
    head, options = split_options(text.strip())
    match = _SCHEME.match(head)
    if match is None:
        if head in names:
            return Uri("", head, options)
        spelled = ", ".join(f"'{s}:{head or 'NAME'}'" for s in valid)
        hint = near_miss(head, names) if names else ""
        raise UriError(
            f"{text!r} is no {kind}. {hint} With a scheme, write one of: {spelled}".replace("  ", " ")
        )
    scheme, rest = match.group(1), match.group(2)
    if scheme not in valid:
        raise UriError(f"{text!r}: unknown {kind} scheme {scheme!r}. {near_miss(scheme, [*valid, *names])}")
    if not rest:
        raise UriError(f"{text!r}: nothing stands after '{scheme}:'")
    return Uri(scheme, rest, options)
