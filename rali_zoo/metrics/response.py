"""The response to degradations: whether scores fall when an image is degraded further.

Nobody has to rate anything: a photograph is better than its degraded copies, and a lower level of one distortion
better than a higher one. What is counted are *pairs of neighbouring levels* (1-2, 2-3, …) of one content under one
distortion, the hardest pairs there are; a scorer that cannot tell any apart is right in half of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rali_zoo.metrics.bootstrap import Resamples, percentile_interval
from rali_zoo.metrics.correlation import FloatArray

#: Degradations from here on are strong: the untouched image should stand above each of them.
STRONG = 4


@dataclass(frozen=True)
class Share:
    """A share with its 95 % bootstrap interval over contents.

    Attributes:
        value: in [0, 1]; NaN of nothing.
        low: lower end of the interval; NaN where fewer than two contents can be drawn from.
        high: upper end.
        n: what it is a share of.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class DegradationResponse:
    """How scores follow degradations.

    Attributes:
        ordered: of all pairs of neighbouring levels, those in which the lower level has the higher score; a tie
            counts half, a pair with an image without a score nothing.
        pristine_first: of all chains with an untouched image and strong levels, those in which it scores above
            every one of them; a tie, or an image without a score, is a no.
        by_distortion: distortion to its share of ordered pairs.
        by_family: family of distortions to the same.
        contents: that there are.
    """

    ordered: Share
    pristine_first: Share
    by_distortion: dict[str, Share]
    by_family: dict[str, Share]
    contents: int


def degradation_response(
    scores: ArrayLike,
    chains: Sequence[Sequence[int]],
    content: Sequence[str],
    distortion: Sequence[str],
    level: ArrayLike,
    families: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> DegradationResponse:
    """Share of neighbouring levels that scores put in their order.

    Args:
        scores: (n,) higher is better; NaN or infinite = the image failed.
        chains: rows of each chain, best first: one content under one distortion, an untouched image (level 0)
            before its levels if there is one; see :func:`rali_zoo.data.samplers.chains_of`.
        content: (n,) what an image shows.
        distortion: (n,) its distortion; of a chain, that of its last row.
        level: (n,) severity; 0 = untouched.
        families: name of each family of distortions to its members; a family without pairs is left out.
        seed: of the bootstrap, which draws whole contents.
        resamples: number of resamples.

    Raises:
        ValueError: vectors of different lengths, or no pair of neighbouring levels.
    """
    x, severity = np.asarray(scores, dtype=np.float64), np.asarray(level)
    if not len(x) == len(content) == len(distortion) == len(severity):
        raise ValueError(
            f"{len(x)} scores, {len(content)} contents, {len(distortion)} distortions, {len(severity)} levels; "
            "they pair up row by row"
        )
    neighbours = [
        (better, worse)
        for chain in chains
        for better, worse in zip(chain, chain[1:], strict=False)
        if severity[better] > 0 and severity[worse] == severity[better] + 1
    ]
    if not neighbours:
        raise ValueError("no two neighbouring levels of one content and distortion")
    better, worse = (np.array(rows) for rows in zip(*neighbours, strict=True))
    kinds = np.array([distortion[row] for row in worse])
    hits = _Hits(_ordered(x[better], x[worse]), [content[row] for row in worse], seed, resamples)
    members = {name: np.isin(kinds, list(kinds_of)) for name, kinds_of in (families or {}).items()}
    return DegradationResponse(
        ordered=hits.share(),
        pristine_first=_pristine_first(x, chains, content, severity, seed, resamples),
        by_distortion={str(kind): hits.share(kinds == kind) for kind in np.unique(kinds)},
        by_family={name: hits.share(rows) for name, rows in members.items() if rows.any()},
        contents=len(set(content)),
    )


def _ordered(better: FloatArray, worse: FloatArray) -> FloatArray:
    """(pairs,) 1 = right, 0.5 = a tie, 0 = wrong or not scored."""
    known = np.isfinite(better) & np.isfinite(worse)
    with np.errstate(invalid="ignore"):
        return np.where(known, (better > worse) + 0.5 * (better == worse), 0.0)


def _pristine_first(
    x: FloatArray,
    chains: Sequence[Sequence[int]],
    content: Sequence[str],
    severity: NDArray[np.generic],
    seed: int,
    resamples: int,
) -> Share:
    hits, contents = [], []
    for chain in chains:
        strong = [row for row in chain if severity[row] >= STRONG]
        if severity[chain[0]] == 0 and strong:
            hits.append(float(np.isfinite(x[[chain[0], *strong]]).all() and x[chain[0]] > x[strong].max()))
            contents.append(content[chain[0]])
    if not hits:
        return Share(math.nan, math.nan, math.nan, 0)
    return _Hits(np.array(hits), contents, seed, resamples).share()


class _Hits:
    """(n,) hits of known contents, and the same resamples of contents for every share of them."""

    def __init__(self, hits: FloatArray, contents: Sequence[str], seed: int, resamples: int) -> None:
        self.hits = hits
        several = len(set(contents)) > 1
        self.drawn = Resamples(hits.size, resamples, seed, contents) if several else None

    def share(self, rows: NDArray[np.bool_] | None = None) -> Share:
        hits, drawn = self.hits, self.drawn
        if rows is not None:
            hits, drawn = hits[rows], None if drawn is None else drawn.only(rows)
        low, high = math.nan, math.nan
        if drawn is not None:
            low, high = percentile_interval(drawn.mean(hits), units=drawn.units)
        return Share(float(hits.mean()), low, high, hits.size)
