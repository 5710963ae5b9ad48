"""``csv:PATH``: scores that were computed elsewhere, by the name of the image."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.baselines.base import Foreign
from rali_zoo.data.readers.frame import need_columns, read_csv, some
from rali_zoo.data.readers.options import number_pair, truth
from rali_zoo.errors import ScoreTableError
from rali_zoo.outputs import from_csv_cell
from rali_zoo.types import MOS_RANGE, Score
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    import torch

    from rali_zoo.types import ImageSource

OPTIONS = ("column", "id", "higher", "training_sets", "name", "score_range")


class TableScorer(Foreign):
    """Scores from a file, as a :class:`~rali_zoo.types.Scorer`; it looks at no image.

    Args:
        name: what it is called.
        scores: native score by id, as it stands in the file.
        revision: hash of the file.
        higher: whether a higher native score is a better one.
        training_sets: rated data sets that whatever made the scores was fitted to; ``None`` = not known.
        score_range: nominal range of the native scores; ``None`` = not stated.

    Attributes:
        needs_reference: never.
        score_range: of the scores it gives, sign turned; ``None`` = not stated.
        native_scale: whether scores are in units of their own instead of MOS in [1, 5].
        preprocess_id: empty.
    """

    needs_reference = False
    preprocess_id = ""
    licence = ""

    def __init__(
        self,
        name: str,
        scores: dict[str, str],
        revision: str,
        higher: bool = True,
        training_sets: tuple[str, ...] | None = None,
        score_range: tuple[float, float] | None = None,
    ) -> None:
        self.name, self.revision, self.training_sets = name, revision, training_sets
        self.score_range = score_range
        if score_range is not None and not higher:
            self.score_range = (0.0 - score_range[1], 0.0 - score_range[0])
        self.native_scale = self.score_range != MOS_RANGE
        self._scores, self._sign = scores, 1.0 if higher else -1.0
        self._asked: dict[str, set[str]] = {}  # by file name, the paths that were asked for so far
        self._lock = threading.Lock()
        self._by_file: dict[str, list[str]] = {}
        for identity in scores:
            self._by_file.setdefault(os.path.basename(identity), []).append(identity)

    def modules(self) -> list[torch.nn.Module]:
        """None: nothing is computed here."""
        return []

    def scores_for(self, ids: Sequence[str]) -> list[Score]:
        """Look scores up.

        Args:
            ids: ids of images, or their paths. A path that the file does not have is looked for by its file
                name, where the file names that image without a folder and only one of ``ids`` has that name.

        Returns:
            One score an id, in order, higher = better; one that is missing or no number has ``error``.
        """
        asked = [str(identity) for identity in ids]
        self.announce(asked)
        return [self._look_up(path) for path in asked]

    def announce(self, paths: Iterable[str]) -> None:
        """Say which images will be asked for, where that is done in several calls."""
        with self._lock:
            for path in paths:
                name = os.path.basename(path)
                if name in self._scores:
                    self._asked.setdefault(name, set()).add(os.path.normpath(path))

    def score(
        self,
        images: ImageSource | Iterable[ImageSource],
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
        workers: int = 2,
        references: ImageSource | Iterable[ImageSource | None] | None = None,
    ) -> list[Score]:
        """As :meth:`scores_for`, of paths; an image without a path has ``error``.

        Args:
            images: one path or several.
            batch_size: not used.
            progress: called with the number of images when all are done.
            workers: not used.
            references: not used.
        """
        items = list(images) if isinstance(images, list | tuple) else [images]
        paths = iter(self.scores_for([str(image) for image in items if isinstance(image, str | Path)]))
        found = [
            next(paths)
            if isinstance(image, str | Path)
            else self._error(f"[{i}]", "scores of a file are found by an image's path")
            for i, image in enumerate(items)
        ]
        if progress is not None:
            progress(len(found))
        return found

    def _look_up(self, asked: str) -> Score:
        identity, name = asked, os.path.basename(asked)
        if asked not in self._scores:
            if name not in self._scores:
                return self._error(asked, "the file has no score of it" + self._elsewhere(name))
            if len(self._asked[name]) > 1:
                others = some(sorted(self._asked[name]), 3)
                return self._error(
                    asked, f"the file has one {name!r} and several images are called so: {others}"
                )
            identity = name
        text = self._scores[identity].strip()
        try:
            value = float(text)
        except ValueError:
            return self._error(asked, f"the file holds no number for it ({text!r})")
        if not math.isfinite(value):
            return self._error(asked, f"the file holds {text} for it")
        return Score(self._sign * value + 0.0, path=asked, model=self.name)

    def _elsewhere(self, name: str) -> str:
        same = self._by_file.get(name, [])
        return f"; it has {some(same, 3)}, in another folder" if same else ""

    def _error(self, path: str, why: str) -> Score:
        return Score(None, error=why, path=path, model=self.name)


def load(uri: Uri, device: str | None = None) -> TableScorer:
    """Read a table of scores.

    Args:
        uri: ``csv:PATH`` with the options ``column`` (of the scores; ``score``), ``id`` (column of the ids;
            ``id``, or ``path`` where there is none), ``higher`` (whether more is better; ``true``),
            ``training_sets`` (joined by commas; empty = none, left out = not known), ``score_range``
            (``LOW,HIGH``; ``1,5`` says that they are on the MOS scale) and ``name`` (what tables call it;
            ``csv:`` and the file's name).
        device: not used.

    Raises:
        UriError: an option that cannot be read.
        ScoreTableError: no such file or column, or an id twice.
    """
    options, path = uri.take(OPTIONS), Path(uri.id)
    if not path.is_file():
        raise ScoreTableError(f"{path} does not exist (looked for from {Path.cwd()})")
    table = read_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    # What 'score' writes has a column path, whose cells are marked where a spreadsheet would run them.
    key = options.get("id", "path" if "path" in table and "id" not in table else "id")
    column = options.get("column", "score")
    need_columns(table, (key, column), path)
    twice = table.loc[table[key].duplicated(), key]
    if len(twice):
        raise ScoreTableError(f"{path} names an image twice: {some(twice)}")
    higher = truth(str(uri), options, "higher", default=True)
    sets = options.get("training_sets")
    digest = hashlib.sha256(path.read_bytes() + f"\n{key} {column} {higher}".encode()).hexdigest()
    return TableScorer(
        name=options.get("name", f"csv:{path.name}"),
        scores=dict(zip(map(from_csv_cell, table[key]), table[column], strict=True)),
        revision=digest[:12],
        higher=higher,
        training_sets=None if sets is None else tuple(s for s in sets.split(",") if s),
        score_range=number_pair(str(uri), options, "score_range") if "score_range" in options else None,
    )


def list_metrics(offline: bool = False) -> list[str]:
    """None: the names are paths."""
    return []
