"""Whether a model saw the test set: by the training sets it declares, and by their files where they are."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

from rali_zoo.bench.rows import Rows
from rali_zoo.data.splits import ALL_OPTIONS
from rali_zoo.errors import RaliZooError
from rali_zoo.uri import split_options, without_option


class Leakage(NamedTuple):
    """A flag and the reason for it.

    Attributes:
        flag: ``none`` = trained on other data sets, as it declares; ``same-dataset`` = on other rows of this
            one; ``test-rows`` = on some of these very images; ``unknown`` = it does not declare.
        why: in words.
    """

    flag: str
    why: str


def leakage(training_sets: tuple[str, ...] | None, rows: Rows, root: str) -> Leakage:
    """Judge a cell.

    Args:
        training_sets: references as the scorer declares them; ``None`` where its authors do not say.
        rows: what it is tested on.
        root: folder that holds a folder of each data set's name.
    """
    if training_sets is None:
        return Leakage("unknown", "its training sets are not declared")
    tested = {os.path.realpath(p) for p in rows.frame["path"].astype(str)}
    same = []
    for ref in training_sets:
        seen = len(tested & _trained_files(ref, root)) if _may_share(ref, rows.ref) else 0
        if seen:
            return Leakage("test-rows", f"{seen} of the {len(tested)} images are training rows of {ref}")
        if _name(ref) == _name(rows.ref):
            same.append(ref)
    if same:
        return Leakage("same-dataset", f"trained on other rows of {', '.join(same)}")
    return Leakage(
        "none", f"trained on {', '.join(training_sets)}" if training_sets else "nothing was trained"
    )


def _name(ref: str) -> str:
    """A data set's name without options: ``synthetic:lab`` for ``synthetic:lab?n=500``."""
    return split_options(ref)[0].lower()


def _may_share(ref: str, tested: str) -> bool:
    """Whether two references can lead to the same files; synthetic ones are built when they are read."""
    if not ref.startswith("synthetic:"):
        return True
    bare = []
    for text in (ref, tested):
        for option in (*ALL_OPTIONS, "workers"):
            text = without_option(text, option)
        bare.append(text)
    return bare[0] == bare[1]


@lru_cache(maxsize=32)
def _trained_files(ref: str, root: str) -> frozenset[str]:
    """Files of the rows that were trained or validated on; none where the data set is not at hand."""
    from rali_zoo.data.tables import load_table

    try:
        frame = load_table(ref, root).frame
    except RaliZooError:
        return frozenset()
    paths = frame.loc[frame["split"] != "test", "path"].astype(str)
    return frozenset(os.path.realpath(p) for p in paths)
