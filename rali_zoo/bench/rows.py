"""The rows of a suite's data set: its test rows, or a drawn part of them, as results files have them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.bench.cache import content_digests
from rali_zoo.bench.results import TARGETS, Dataset, Targets, rows_sha256
from rali_zoo.bench.suite import DatasetEntry, DegradationEntry, Suite
from rali_zoo.errors import ConfigError
from rali_zoo.paths import text_sha256
from rali_zoo.report import six, slug

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.data.card import DatasetCard


@dataclass(frozen=True, eq=False)
class Rows:
    """What a suite scores of one data set.

    Attributes:
        ref: of the data set.
        card: its facts.
        split: which rows.
        limit: how many were drawn; ``None`` when there are no more than that, or no limit.
        slug: file name of its results.
        frame: one row an image, columns as in :class:`rali_zoo.data.tables.DataTable`.
        publish: whether ids, MOS and scores may stand in files that others see.
        ordered: whether what counts is the order of its levels, and no MOS.
    """

    ref: str
    card: DatasetCard
    split: str
    limit: int | None
    slug: str
    frame: pd.DataFrame
    publish: bool
    ordered: bool = False

    @cached_property
    def targets(self) -> Targets:
        """Ids and labels, columns of equal length; numbers have the six digits that files hold."""
        frame = self.frame
        columns = {
            "ids": frame["id"].astype(str).tolist(),
            "mos": [] if self.ordered else [six(v) for v in frame["mos"]],
            "std": [] if self.ordered else [six(v) for v in frame["std"]],
            "content": frame["content"].astype(str).tolist(),
            "distortion": frame["distortion"].astype(str).tolist(),
            "level": [int(v) for v in frame["level"]],
        }
        return Targets.model_validate(
            {"ref": self.ref, "split": self.split, **columns, "rows_sha256": rows_sha256(columns)}
        )

    @cached_property
    def digests(self) -> list[str | None]:
        """SHA-256 of each image's bytes; ``None`` for a file that cannot be read."""
        return content_digests(self.frame["path"].astype(str).tolist())

    @cached_property
    def entry(self) -> Dataset:
        """What a cell states of the data set; reads all images once, to know them again."""
        part = "" if self.limit is None else f" ({self.limit} rows)"
        images = [d or "-" for d in self.digests]
        if "reference" in self.frame:
            images += [
                d or "-" for d in content_digests(self.frame["reference"].fillna("").astype(str).tolist())
            ]
        facts = asdict(self.card)
        del facts["note"]
        if facts["question"] == "quality":  # as before cards said so, that hashes stay
            del facts["question"]
        return Dataset(
            ref=self.ref,
            name=f"{self.card.name}{part}",
            split=self.split,
            card_hash=text_sha256(json.dumps(facts, sort_keys=True, default=str))[:12],
            synthetic=self.card.synthetic,
            ordered=self.ordered,
            question=self.card.question,
            n=len(self.frame),
            limit=self.limit,
            raters=self.card.raters,
            rows_sha256=self.targets.rows_sha256,
            images_sha256=text_sha256("\n".join(images)),
            targets=f"{TARGETS}/{self.slug}.json" if self.publish else None,
        )

    def without_reference(self) -> str:
        """Why a full-reference metric has nothing to compare with; empty if some row has a reference."""
        if "reference" not in self.frame or (self.frame["reference"].fillna("") == "").all():
            return f"{self.ref} has no reference images, and this metric compares with one"
        return ""


def load_rows(entry: DatasetEntry, suite: Suite, root: str | Path) -> Rows:
    """Read a suite's data set.

    Args:
        entry: of the suite.
        suite: its split, limit, draw and seed.
        root: folder that holds a folder of each data set's name.

    Raises:
        RaliZooError: as :func:`rali_zoo.data.tables.load_table`.
        ConfigError: no row of that split has a score; of degradations, no two levels of a distortion.
    """
    from rali_zoo.data.tables import load_table

    table = load_table(entry.ref, root)
    frame = table.split(suite.split)
    publish = table.card.synthetic if entry.publish is None else entry.publish
    if isinstance(entry, DegradationEntry):
        return _ordered(entry, suite, table.card, frame.reset_index(drop=True), publish)
    frame = frame[frame["mos"].notna()].reset_index(drop=True)
    if frame.empty:
        raise ConfigError(f"{entry.ref!r} has no {suite.split} rows with a score; {table.describe()}")
    limit = suite.limit if suite.limit is not None and suite.limit < len(frame) else None
    name = slug(entry.ref) + ("" if suite.split == "test" else f"-{suite.split}")
    if limit is not None:
        frame = draw(frame, limit, suite.seed, suite.balance)
        balanced = "balanced" if suite.balance else ""
        name += f"-{limit}{balanced}rows" + (f"-seed{suite.seed}" if suite.seed else "")
    return Rows(entry.ref, table.card, suite.split, limit, name, frame, publish)


def _ordered(
    entry: DegradationEntry, suite: Suite, card: DatasetCard, frame: pd.DataFrame, publish: bool
) -> Rows:
    from rali_zoo.bench.response import chains

    name = f"{slug(entry.ref)}-response" + ("" if suite.split == "test" else f"-{suite.split}")
    rows = Rows(entry.ref, card, suite.split, None, name, frame, publish, ordered=True)
    levels = frame["level"].tolist()
    if not any(sum(levels[row] > 0 for row in chain) > 1 for chain in chains(rows.targets)):
        raise ConfigError(
            f"{entry.ref!r} has no {suite.split} rows of one content and distortion in two levels; degradations: take "
            "such as 'degraded:library?protocol=whole'"
        )
    return rows


def draw(frame: pd.DataFrame, limit: int, seed: int, balance: bool = False) -> pd.DataFrame:
    """Rows drawn by their names, so that the draw does not depend on the order of the table.

    Args:
        frame: columns ``id`` and ``content``.
        limit: how many.
        seed: of the draw.
        balance: take the contents in turn, so that none has more rows than another unless the others are
            used up; without it contents come as often as the data set has them, and a few large ones can
            make up most of the rows, which then are worth few independent ones.

    Returns:
        At most ``limit`` rows in the order of ``frame``.
    """
    names, contents = frame["id"].astype(str), frame["content"].astype(str)
    order = sorted(
        range(len(frame)), key=lambda i: hashlib.sha256(f"{seed}|{names.iloc[i]}".encode()).digest()
    )
    if balance:
        turn: dict[str, int] = {}
        turns = {}
        for row in order:
            turns[row] = turn[contents.iloc[row]] = turn.get(contents.iloc[row], 0) + 1
        order.sort(key=turns.__getitem__)
    return frame.iloc[sorted(order[:limit])].reset_index(drop=True)
