"""Whether a model saw the test set: by the training sets it declares, and by the images of those at hand."""

from __future__ import annotations

import os
from functools import lru_cache

from rali_zoo.bench.cache import content_digests
from rali_zoo.bench.results import Leakage
from rali_zoo.bench.rows import Rows
from rali_zoo.data.synthetic.degraded import LIBRARY
from rali_zoo.data.tables import COMMON
from rali_zoo.errors import RaliZooError
from rali_zoo.uri import split_options, without_option


def leakage(training_sets: tuple[str, ...] | None, rows: Rows, root: str) -> Leakage:
    """Judge a cell.

    Args:
        training_sets: references as the scorer declares them; ``None`` where its authors do not state them.
        rows: what it is tested on.
        root: folder that holds a folder of each data set's name.

    Returns:
        Flag ``none`` = trained on other data sets, as it declares; ``same-dataset`` = on other rows of this
        one; ``test-rows`` = on some of these very images, whatever they are called and wherever they stand, or on
        degraded copies of these very photographs; ``unknown`` = it does not declare.
    """
    if training_sets is None:
        return Leakage(flag="unknown", why="its training sets are not declared")
    tested = {digest for digest in rows.digests if digest}
    sizes = {size for path in rows.frame["path"].astype(str) if (size := _size(path)) is not None}
    same = []
    for ref in training_sets:
        if _degraded(ref) is not None and _degraded(ref) == _degraded(rows.ref):
            return Leakage(flag="test-rows", why=f"trained on degraded copies of the same photographs: {ref}")
        if _may_share(ref, rows.ref):
            # Only files as large as a tested one can be the same: the others are not read.
            trained = [path for path in _trained_files(ref, root) if _size(path) in sizes]
            seen = len(tested.intersection(content_digests(trained)))
            if seen:
                why = f"{seen} of the {len(tested)} images are training rows of {ref}"
                return Leakage(flag="test-rows", why=why)
        if _name(ref) == _name(rows.ref):
            same.append(ref)
        elif ref.startswith("synthetic:") and _degraded(rows.ref) == LIBRARY:
            why = f"{ref} holds degraded copies of some of these photographs"
            return Leakage(flag="same-dataset", why=why)
    if same:
        return Leakage(flag="same-dataset", why=f"trained on other rows of {', '.join(same)}")
    why = f"trained on {', '.join(training_sets)}" if training_sets else "nothing was trained"
    return Leakage(flag="none", why=why)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _name(ref: str) -> str:
    """A data set's name without options: ``synthetic:lab`` for ``synthetic:lab?n=500``."""
    return split_options(ref)[0].lower()


def _degraded(ref: str) -> str | None:
    """The photographs that ``degraded:`` degrades: a folder or table by its shortest path; ``None`` of other sets."""
    scheme, _, path = split_options(ref)[0].partition(":")
    return os.path.normpath(path) if scheme == "degraded" else None


def _may_share(ref: str, tested: str) -> bool:
    """Whether two references can lead to the same images; those that are built when they are read are not built."""
    if _degraded(ref) is not None:  # of other photographs, or they had been found out
        return False
    if not ref.startswith("synthetic:"):
        return True
    bare = []
    for text in (ref, tested):
        for option in (*COMMON, "workers"):
            text = without_option(text, option)
        bare.append(text)
    return bare[0] == bare[1]


@lru_cache(maxsize=32)
def _trained_files(ref: str, root: str) -> tuple[str, ...]:
    """Files of the rows that were trained or validated on; none where the data set is not at hand."""
    from rali_zoo.data.tables import load_table

    try:
        frame = load_table(ref, root).frame
    except RaliZooError:
        return ()
    return tuple(frame.loc[frame["split"] != "test", "path"].astype(str))
