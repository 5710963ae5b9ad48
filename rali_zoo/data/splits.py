"""Protocols: which rows are trained on, validated on, tested on.

| protocol | rows | options |
|---|---|---|
| official | the split its authors published | val_fraction, seed |
| deqa | DeQA-Score's lists (7k/2k of KonIQ-10k …), from their metas, and its labels | metas, val_fraction, seed |
| whole | every row is tested on | |
| kfold | fold ``fold`` of ``folds`` is tested on, contents kept apart | folds, fold, val_fraction, seed |
| random | a share ``ratio`` of the contents is trained on, the rest tested on | ratio, val_fraction, seed |

Where a protocol names no validation rows, ``val_fraction`` of the training contents (a tenth, if not said) is
taken for them; a list of ``deqa`` stays whole unless it is said. In every draw, images that share a ``content``
stay together, and the draw depends on the contents and ``seed`` alone, not on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rali_zoo.data.card import DatasetCard
from rali_zoo.errors import ConfigError, DatasetNotFoundError, ScoreTableError, UnknownNameError, UriError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Options of each protocol.
OPTIONS: dict[str, tuple[str, ...]] = {
    "official": ("val_fraction", "seed"),
    "deqa": ("metas", "val_fraction", "seed"),
    "whole": (),
    "kfold": ("folds", "fold", "val_fraction", "seed"),
    "random": ("ratio", "val_fraction", "seed"),
}

#: Every option that a reference may hold for its protocol.
ALL_OPTIONS = ("protocol", *dict.fromkeys(o for names in OPTIONS.values() for o in names))


@dataclass(frozen=True)
class SplitPlan:
    """A protocol and its options, checked.

    Attributes:
        protocol: one of the card's protocols.
        folds: number of folds, >= 2.
        fold: the fold to test on, in [0, folds).
        ratio: share of the contents to train on, in (0, 1).
        val_fraction: share of the training contents to validate on, in [0, 1); 0 = none.
        seed: of every draw.
        metas: folder with DeQA's lists; empty = ``metas`` in the data set's folder.
    """

    protocol: str
    folds: int = 5
    fold: int = 0
    ratio: float = 0.8
    val_fraction: float = 0.1
    seed: int = 0
    metas: str = ""


def parse_plan(
    ref: str, options: dict[str, str], card: DatasetCard, foreign: Iterable[str] = ()
) -> SplitPlan:
    """The plan that a reference's options ask for.

    Args:
        ref: the reference, for messages.
        options: those of the reference that belong to splits.
        card: says which protocols there are, and the default.
        foreign: options that also belong to the reader, and are no mistake under any protocol.

    Raises:
        UnknownNameError: a protocol the data set does not have.
        UriError: a value that cannot be, or an option of another protocol.
    """
    protocol = options.get("protocol", card.default_protocol)
    if protocol not in card.protocols:
        raise UnknownNameError(f"protocol of {card.name}", protocol, card.protocols)
    values: dict[str, int | float | str] = {}
    for field in fields(SplitPlan):
        if field.name == "protocol" or field.name not in options:
            continue
        if field.name not in OPTIONS[protocol]:
            if field.name in foreign:
                continue
            owners = " or ".join(
                p for p, names in OPTIONS.items() if field.name in names and p in card.protocols
            )
            raise UriError(
                f"{ref!r}: {field.name!r} means nothing to protocol {protocol!r}; it belongs to {owners}"
            )
        values[field.name] = _value(ref, field.name, str(field.type), options[field.name])
    if protocol == "deqa":
        values.setdefault("val_fraction", 0.0)  # whoever names DeQA's list means all of it
    plan = SplitPlan(protocol, **values)  # type: ignore[arg-type]  # _value made each of its field's type
    _check(ref, plan)
    return plan


def _value(ref: str, name: str, kind: str, text: str) -> int | float | str:
    try:
        return {"int": int, "float": float, "str": str}[kind](text)
    except ValueError:
        raise UriError(f"{ref!r}: {name}={text!r} is no {'whole ' if kind == 'int' else ''}number") from None


def _check(ref: str, plan: SplitPlan) -> None:
    limits = {
        "folds": (plan.folds >= 2, "2 or more"),
        "fold": (0 <= plan.fold < plan.folds, f"0 to {plan.folds - 1}"),
        "ratio": (0 < plan.ratio < 1, "a share between 0 and 1"),
        "val_fraction": (0 <= plan.val_fraction < 1, "a share in [0, 1)"),
        "seed": (0 <= plan.seed < 2**32, "0 to 2**32 - 1"),
    }
    for name, (fits, wanted) in limits.items():
        if not fits:
            raise UriError(f"{ref!r}: {name}={getattr(plan, name)} cannot be; give {wanted}")


def assign(card: DatasetCard, frame: pd.DataFrame, plan: SplitPlan, folder: Path) -> pd.Series:
    """The split of every row.

    Args:
        card: of the data set.
        frame: columns ``id``, ``split`` as published, ``content``.
        plan: see :class:`SplitPlan`.
        folder: the data set's folder, where ``metas`` is looked for.

    Returns:
        ``train``, ``val`` or ``test``, and ``""`` for rows that DeQA's lists do not use; index as ``frame``.

    Raises:
        ConfigError: too few contents for the plan, or no published split.
        DatasetNotFoundError: DeQA's lists are missing.
        ScoreTableError: DeQA's lists disagree with the data set.
    """
    import pandas as pd

    if plan.protocol == "whole":
        return pd.Series("test", index=frame.index)
    if plan.protocol == "official":
        split = _official(card, frame)
    elif plan.protocol == "deqa":
        split = _deqa(card, frame, Path(plan.metas) if plan.metas else folder / "metas")
    else:
        contents = frame["content"].to_numpy(str)
        tested = (
            _fold(contents, plan) if plan.protocol == "kfold" else _draw(contents, 1 - plan.ratio, plan.seed)
        )
        split = pd.Series("train", index=frame.index)
        split.iloc[tested] = "test"
    return _carve(frame, split, plan)


def deqa_card(card: DatasetCard, frame: pd.DataFrame) -> DatasetCard:
    """The card with DeQA's scale: its labels run from 1 to 5 between the extremes of the whole set (paper, 4.1).

    Args:
        card: of the data set.
        frame: every row of the set, ``mos`` on the native scale.
    """
    return replace(card, mos_range=(float(frame["mos"].min()), float(frame["mos"].max())))


def _official(card: DatasetCard, frame: pd.DataFrame) -> pd.Series:
    unknown = int((frame["split"] == "").sum())
    if unknown:
        others = ", ".join(f"?protocol={p}" for p in card.protocols if p != "official")
        raise ConfigError(
            f"{card.name}: protocol 'official', but {unknown} of {len(frame)} rows have no published split. "
            f"Add the file that holds it, or take another protocol: {others}.\nExpected "
            f"layout:\n{card.layout}"
        )
    return frame["split"].copy()


def _deqa(card: DatasetCard, frame: pd.DataFrame, folder: Path) -> pd.Series:
    import pandas as pd

    from rali_zoo.data.readers.deqa import URL, load_metas, meta_files
    from rali_zoo.data.readers.frame import need_columns, some

    layout = f"{folder}/\n  train_*.json\n  test_*.json"
    if not folder.is_dir():
        raise DatasetNotFoundError(
            f"DeQA's lists of {card.name}", folder, layout, f"{URL}, or give ?metas=FOLDER"
        )
    files = meta_files(folder)
    if len(files) < 2:
        raise DatasetNotFoundError(
            f"DeQA's lists of {card.name}", f"one of the two lists in {folder}", layout, URL
        )
    by_name = {PurePosixPath(i).name: row for row, i in frame["id"].items()}
    split = pd.Series("", index=frame.index)
    for part, file in files.items():
        metas = load_metas(file)
        need_columns(metas, ("image",), file)
        names = [PurePosixPath(n).name for n in metas["image"].astype(str)]
        absent = [n for n in names if n not in by_name]
        if absent:
            raise ScoreTableError(f"{file} lists images that {card.name} does not have: {some(absent)}")
        rows = [by_name[n] for n in names]
        both = [n for n, row in zip(names, rows, strict=True) if split[row] not in ("", part)]
        if both:
            raise ScoreTableError(f"{folder} lists images for training and for testing: {some(both)}")
        split[rows] = part
    return split


def _fold(contents: np.ndarray, plan: SplitPlan) -> np.ndarray:
    from sklearn.model_selection import GroupKFold

    distinct = len(set(contents))
    if distinct < plan.folds:
        raise ConfigError(
            f"{plan.folds} folds need as many contents; there are {distinct}. Give a smaller folds="
        )
    folds = GroupKFold(plan.folds, shuffle=True, random_state=plan.seed).split(contents, groups=contents)
    return [tested for _, tested in folds][plan.fold]


def _draw(contents: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Positions of all rows of a drawn share of the contents (at least one, never all)."""
    from sklearn.model_selection import GroupShuffleSplit

    distinct = len(set(contents))
    if distinct < 2:
        raise ConfigError(
            f"a split needs two contents or more; there is {distinct}. Take ?protocol=whole or val_fraction=0"
        )
    count = min(max(round(share * distinct), 1), distinct - 1)
    _, drawn = next(GroupShuffleSplit(1, test_size=count, random_state=seed).split(contents, groups=contents))
    return drawn


def _carve(frame: pd.DataFrame, split: pd.Series, plan: SplitPlan) -> pd.Series:
    trained = frame.index[split == "train"]
    if plan.val_fraction == 0 or not len(trained) or (split == "val").any():
        return split
    drawn = _draw(frame.loc[trained, "content"].to_numpy(str), plan.val_fraction, plan.seed)
    split[trained[drawn]] = "val"
    return split
