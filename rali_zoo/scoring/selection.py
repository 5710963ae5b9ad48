"""Which images are the worst and the best: of all or of each folder, with near-duplicates kept together.

Places in an order mean more than scores: what score is good depends on the model and on what was photographed,
but the worst tenth of a folder is the worst tenth whatever the scale. So images are chosen by number or by share,
never by a threshold.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np

from rali_zoo.data.images import load_image
from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError
from rali_zoo.types import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

Order = Literal["worst", "best"]
#: Bits of 64 in which the perceptual hashes of near-duplicates may differ.
NEAR = 8


class ScoredImage(NamedTuple):
    """An image with its score.

    Attributes:
        item: where it is.
        score: of it.
        quantile: share in (0, 1) of the images compared with it that are worse, ties by half; ``None`` without a
            score.
    """

    item: Item
    score: Score
    quantile: float | None = None

    @property
    def value(self) -> float:
        """The score; NaN where there is none."""
        return math.nan if self.score.score is None else self.score.score


@dataclass(frozen=True)
class Section:
    """Images that stand together.

    Attributes:
        title: which they are.
        scores: (10 %, 50 %, 90 %) quantiles of all scores that they were chosen from; NaN where there is none.
        images: how many they were chosen from.
        groups: the images in order; near-duplicates share a group, the best of them first.
    """

    title: str
    scores: tuple[float, float, float]
    images: int
    groups: list[list[ScoredImage]]

    @property
    def rows(self) -> list[ScoredImage]:
        """Its images, one after the other."""
        return [row for group in self.groups for row in group]


@dataclass(frozen=True)
class Share:
    """How many images are chosen: a number, or a share of those that have a score."""

    number: int = 0
    percent: float = 0.0

    @classmethod
    def parse(cls, text: str, option: str) -> Share:
        """Read ``20`` or ``10%``.

        Args:
            text: what was given.
            option: its name, for the message.

        Raises:
            ConfigError: neither a whole number of images nor a share above 0 and at most 100 %.
        """
        if re.fullmatch(r"[1-9]\d*", text):
            return cls(number=int(text))
        if (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)) and 0 < float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        raise ConfigError(f"{option} {text!r}: give a number of images such as 20, or a share such as 10%")

    def of(self, count: int) -> int:
        """How many of ``count``; at least one of a share."""
        return min(count, self.number or math.ceil(count * self.percent / 100))

    def __str__(self) -> str:
        return str(self.number or f"{self.percent:g} %")


def folder_of(row: ScoredImage) -> str:
    """The folder that an image lies in; of a member of a shard, with the shard's name."""
    return os.path.dirname(row.item.path) or "."


def rank(rows: Iterable[ScoredImage], by_folder: bool) -> list[ScoredImage]:
    """The rows with the quantile of each among all, or among those of its folder."""
    from scipy.stats import rankdata

    found = list(rows)
    folders: dict[str, list[int]] = {}
    for i, row in enumerate(found):
        if row.score.score is not None:
            folders.setdefault(folder_of(row) if by_folder else "", []).append(i)
    for members in folders.values():
        ranks = rankdata([found[i].value for i in members])
        for i, place in zip(members, ranks, strict=True):
            found[i] = found[i]._replace(quantile=(float(place) - 0.5) / len(members))
    return found


def sections(
    rows: Sequence[ScoredImage],
    worst: Share | None = None,
    best: Share | None = None,
    by_folder: bool = False,
    order: Order = "best",
    groups: Sequence[int] | None = None,
) -> list[Section]:
    """The images that were asked for.

    Args:
        rows: all images; those without a score are not chosen.
        worst: how many of the worst; with near-duplicates, how many groups.
        best: how many of the best. Without ``worst`` and ``best`` all are taken.
        by_folder: from each folder instead of from all.
        order: of images where all are taken.
        groups: a number for each row, the same for near-duplicates; ``None`` keeps each for itself.
    """
    numbers = list(range(len(rows))) if groups is None else list(groups)
    parts: dict[str, list[tuple[int, ScoredImage]]] = {}
    for number, row in zip(numbers, rows, strict=True):
        if row.score.score is not None:
            parts.setdefault(folder_of(row) if by_folder else "", []).append((number, row))
    wanted: list[tuple[str, Order, Share | None]] = []
    if worst is not None:
        wanted.append((f"The worst {worst}", "worst", worst))
    if best is not None:
        wanted.append((f"The best {best}", "best", best))
    found = []
    for folder, members in parts.items():
        for title, first, share in wanted or [("All", order, None)]:
            whole = _grouped(members, first)
            chosen = whole[: share.of(len(whole))] if share is not None else whole
            if share is not None and len(chosen) == len(whole):
                title = f"All, the {first} first"
            values = np.quantile([row.value for _, row in members], (0.1, 0.5, 0.9))
            where = f"{folder}: {title[0].lower()}{title[1:]}" if by_folder else title
            low, middle, high = (float(v) for v in values)
            found.append(Section(where, (low, middle, high), len(members), chosen))
    return found


def _grouped(members: Sequence[tuple[int, ScoredImage]], order: Order) -> list[list[ScoredImage]]:
    """Groups in the order of their first-placed image: of their worst for the worst, their best for the best."""
    groups: dict[int, list[ScoredImage]] = {}
    for number, row in members:
        groups.setdefault(number, []).append(row)
    inside = [sorted(group, key=lambda row: -row.value) for group in groups.values()]
    if order == "best":
        return sorted(inside, key=lambda group: -group[0].value)
    return sorted(inside, key=lambda group: group[-1].value)


# ---- near-duplicates ----


def near_duplicates(rows: Sequence[ScoredImage], workers: int = 2) -> list[int]:
    """A number for each row, the same for shots of one scene: bursts, copies, small edits.

    Images whose perceptual hashes (of the 8x8 lowest frequencies) differ in at most :data:`NEAR` of 64 bits are
    near-duplicates, and so are those of one image.

    Args:
        rows: images; one that cannot be decoded stands for itself.
        workers: threads that decode.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    from concurrent.futures import ThreadPoolExecutor

    try:
        from imagehash import phash
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "imagehash", "sort") from None

    def hashed(row: ScoredImage) -> NDArray[np.bool_] | None:
        if row.score.score is None:
            return None
        try:
            return cast("NDArray[np.bool_]", phash(load_image(row.item.source())).hash.ravel())
        except ImageDecodeError:
            return None

    with ThreadPoolExecutor(workers) as pool:
        hashes = list(pool.map(hashed, rows))
    known = [i for i, bits in enumerate(hashes) if bits is not None]
    numbers = list(range(len(rows)))
    if len(known) > 1:
        for i, number in zip(known, _connected(np.array([hashes[i] for i in known])), strict=True):
            numbers[i] = len(rows) + number
    return numbers


def _connected(bits: NDArray[np.bool_]) -> list[int]:
    """(N, 64) hashes to the number of the component that each is in."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import radius_neighbors_graph

    different, which = np.unique(bits, axis=0, return_inverse=True)
    # distances of the library are shares of all bits
    graph = radius_neighbors_graph(different, (NEAR + 0.5) / bits.shape[1], metric="hamming")
    return cast("list[int]", connected_components(graph, directed=False)[1][which.ravel()].tolist())
