"""Files as disks, editors and strangers change them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

JUNK: list[Any] = [
    *(None, True, -1, 0, 3.5, float("nan"), 10**9, 10**30, 1e300, "", "x", [], {}, [1], [[]], {"a": 1}),
    *("rali:small", "hf:local-dir:/etc", "../../x", "/etc/passwd", "os:system", "RALI", "Regression", "NaN"),
]


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in nested values something stands."""
    if before:
        yield before
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(inner)[:12]:
        yield from places(part, (*before, key))


def mutated(content: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy with one to three places deleted, added to, or replaced."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.choice([*places(content)])
        parent: Any = content
        for key in place[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and rng.random() < 0.3:
            del parent[place[-1]]
        else:
            parent[place[-1]] = copy.deepcopy(rng.choice(JUNK))
        if isinstance(parent, dict) and rng.random() < 0.1:
            parent[rng.choice(["lr", "plugins", "zzz"])] = copy.deepcopy(rng.choice(JUNK))
        if not content:
            break
    return content


def flipped(data: bytes, rng: random.Random, within: int = 3000) -> bytes:
    """Bytes with some of the first ``within`` changed, or the end cut off."""
    wrong = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        wrong[rng.randrange(min(len(wrong), within))] = rng.randrange(256)
    return bytes(wrong[: rng.randrange(len(wrong))]) if rng.random() < 0.2 else bytes(wrong)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with anything wrong in it; one of JSON is often JSON still."""
    kind = rng.randrange(10)
    start, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    if kind == 0:
        return data[:start] + data[end:]
    if kind == 1:
        return data[:end] + data[start:]
    if kind == 2:
        return rng.choice(
            [b"", b"[" * 100_000, b"\xff\xfe", b"null", b"{}", b"[]", b"\x00" * 50, b"- {a: *b}"]
        )
    if kind > 4:
        try:
            content = json.loads(data)
        except ValueError:
            content = None
        if isinstance(content, dict):
            return json.dumps(mutated(content, rng)).encode()
    return flipped(data, rng, len(data))
