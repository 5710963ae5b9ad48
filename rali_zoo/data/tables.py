"""A reference becomes a table: rows, MOS in [1, 5], a split for every row."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.data import splits
from rali_zoo.data.card import DatasetCard
from rali_zoo.data.readers.frame import complete
from rali_zoo.data.registry import DATASETS, GENERIC
from rali_zoo.errors import ConfigError, UriError, near_miss
from rali_zoo.types import MOS_RANGE
from rali_zoo.uri import Uri, parse_uri

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

#: Suffixes of tables that ``csv:`` reads.
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
ROLES = ("train", "val", "test")
#: Options of every reference; ``where=COLUMN:VALUE`` keeps a part of the data set.
COMMON = (*splits.ALL_OPTIONS, "where")


@dataclass(frozen=True)
class DataTable:
    """A data set as one asked for it.

    Attributes:
        ref: the reference, as typed.
        card: the data set's facts.
        frame: one row an image: ``id, path, mos, std, split, content, distortion, level, mos_native``
            and free columns; ``mos`` in [1, 5] (NaN for images without scores), ``std`` on that scale or
            NaN, ``split`` one of ``train|val|test``, ``mos_native`` on the card's scale.
        protocol: the one that made ``split``.
        unused: rows of the data set that the protocol leaves out.
    """

    ref: str
    card: DatasetCard
    frame: pd.DataFrame
    protocol: str = "official"
    unused: int = 0

    def split(self, role: str) -> pd.DataFrame:
        """Rows of ``train``, ``val`` or ``test``, if any; raises :class:`ConfigError` for another word."""
        if role not in ROLES:
            raise ConfigError(f"unknown split {role!r}. {near_miss(role, ROLES)}")
        return self.frame[self.frame["split"] == role]

    def sample(self, role: str, limit: int | None, seed: int = 0, rated: bool = False) -> pd.DataFrame:
        """At most ``limit`` rows of a split, drawn by ``seed`` alone, in their order.

        Args:
            role: ``train``, ``val``, ``test``; ``predict`` or ``all`` for all rows.
            limit: ``None`` for every row.
            seed: of the draw.
            rated: only rows with a MOS.

        Raises:
            ConfigError: another role, or none of its rows.
        """
        frame = self.frame if role in ("predict", "all") else self.split(role)
        frame = frame[frame["mos"].notna()] if rated else frame
        if frame.empty:
            part = f"{self.ref}{'&' if '?' in self.ref else '?'}protocol=random"
            splits_it = role == "train" and self.protocol == "whole" and "random" in self.card.protocols
            hint = f"; to train on a part of it write {part!r}" if splits_it else ""
            rows = f"{role} rows{' with a MOS' * rated}"
            raise ConfigError(f"{self.ref!r} has no {rows}{hint}; {self.describe()}")
        if limit is None or len(frame) <= limit:
            return frame
        return frame.sample(limit, random_state=seed).sort_index()

    def describe(self) -> str:
        """What it holds, in words; data with labels from a rule are named SYNTHETIC."""
        card, low, high = self.card, *self.card.mos_range
        counts = self.frame["split"].value_counts()
        sizes = ", ".join(f"{role} {counts.get(role, 0)}" for role in ROLES)
        of = f" of {card.n_images}" if len(self.frame) + self.unused != card.n_images else ""
        unused = f", {self.unused} left out by it" if self.unused else ""
        others = ", ".join(p for p in card.protocols if p != self.protocol)
        others = f" (others by ?protocol=: {others})" if others else ""
        better = "higher" if card.higher_is_better else "lower"
        return (
            f"{self.ref}: {'SYNTHETIC labels, ' if card.synthetic else ''}{card.title} "
            f"({card.task}, {card.domain}), {len(self.frame)}{of} images; "
            f"protocol {self.protocol}: {sizes}{unused}{others}; "
            f"native scores in [{low:g}, {high:g}], {better} is better"
        )


def load_table(ref: str, root: str | Path = "data") -> DataTable:
    """Read the data set behind a reference.

    Args:
        ref: a name of the registry (``koniq10k``, ``kadid10k?protocol=kfold&fold=1``) or a scheme
            (``csv:scores.csv?mos_range=0,100``, ``deqa:…``, ``pyiqa:…``, ``synthetic:lab``). Options are
            those of the scheme, ``root=FOLDER``, those of :mod:`rali_zoo.data.splits`, and
            ``where=COLUMN:VALUE``, which keeps the rows that have this text in a column (a subset, a camera).
        root: folder that holds a folder of each data set's name. Where that is absent, ``$RALI_ZOO_DATA``
            is looked into; ``?root=FOLDER`` names the data set's own folder and stands above both.

    Raises:
        UriError: a reference or an option that cannot be read.
        UnknownNameError: a protocol the data set does not have.
        DatasetNotFoundError: files are missing; the message holds the expected layout.
        ScoreTableError: rows that cannot be trusted, named.
        ConfigError: too few contents for the protocol, or no published split.
    """
    name = ref.partition("?")[0]
    if Path(name).suffix.lower() in TABLES and not name.startswith(tuple(f"{s}:" for s in GENERIC)):
        raise UriError(
            f"{ref!r} is a table: write 'csv:{name}?mos_range=LOW,HIGH', with the scale of its scores"
        )
    uri = parse_uri(ref, GENERIC, "data set", bare=DATASETS)
    own = GENERIC[uri.scheme].OPTIONS if uri.scheme else ("root",)
    options = uri.take(dict.fromkeys([*own, *COMMON]))
    mine = {k: v for k, v in options.items() if k in own}
    wanted = {k: v for k, v in options.items() if k in splits.ALL_OPTIONS}
    if uri.scheme:
        card, frame = GENERIC[uri.scheme].open(uri.id, mine)
        plan, folder = splits.parse_plan(ref, wanted, card, foreign=own), Path(uri.id).parent
    else:
        card = DATASETS[uri.id].CARD
        plan = splits.parse_plan(ref, wanted, card)  # before the files: a typo shows without them
        folder = Path(mine["root"]) if "root" in mine else _folder(uri, Path(root))
        frame = DATASETS[uri.id].read(folder)
    frame = complete(card, frame, ref)
    return _table(
        ref, card, _part(ref, frame, options["where"]) if "where" in options else frame, plan, folder
    )


def _part(ref: str, frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows that have a text in a column."""
    column, _, value = where.partition(":")
    if column not in frame or not value:
        raise UriError(f"{ref!r}: where={where!r} names no column. {near_miss(column, frame.columns)}")
    texts = frame[column].astype(str)
    part = frame[texts == value]
    if part.empty:
        raise UriError(
            f"{ref!r}: no image has {column} {value!r}. {near_miss(value, sorted(set(texts))[:50])}"
        )
    return part.reset_index(drop=True)


def _folder(uri: Uri, root: Path) -> Path:
    fallback = os.environ.get("RALI_ZOO_DATA")
    if fallback and not (root / uri.id).is_dir() and (Path(fallback) / uri.id).is_dir():
        return Path(fallback) / uri.id
    return root / uri.id


def _table(
    ref: str, card: DatasetCard, frame: pd.DataFrame, plan: splits.SplitPlan, folder: Path
) -> DataTable:
    frame = frame.copy()
    if plan.protocol == "deqa":
        if len(frame) != card.n_images:
            log.warning(
                "%s: DeQA's labels lie between the extremes of all %d images, and %d are here: they may differ",
                ref, card.n_images, len(frame),
            )  # fmt: skip
        card = splits.deqa_card(card, frame)
    frame["mos_native"] = frame["mos"]
    frame["mos"] = card.to_mos(frame["mos"]).clip(*MOS_RANGE)  # the card's range is checked with a tolerance
    frame["std"] = card.to_std(frame["std"])
    frame["split"] = splits.assign(card, frame, plan, folder)
    used = frame[frame["split"] != ""].reset_index(drop=True)
    return DataTable(ref, card, used, plan.protocol, len(frame) - len(used))
