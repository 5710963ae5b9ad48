"""``csv:PATH``: scores that were computed elsewhere, by the name of the image."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rali_zoo.baselines.base import Foreign
from rali_zoo.data.readers.frame import need_columns, read_csv, some
from rali_zoo.data.readers.options import number_pair, truth
from rali_zoo.errors import ScoreTableError
from rali_zoo.types import MOS_RANGE, Score
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    import torch

OPTIONS = ("column", "id", "higher", "training_sets", "name", "score_range")


class TableScorer(Foreign):
    """Scores from a file, as a :class:`~rali_zoo.types.Scorer`; it looks at no image.

    Args:
        name: what it is called.
        scores: native score by id, as it stands in the file.
        revision: hash of the file.
        higher: whether a higher native score is a better one.
        training_sets: rated data sets that whatever made the scores was fitted to; ``None`` = not known.
        score_range: nominal range of the native scores; ``None`` = not told.

    Attributes:
        needs_reference: never.
        score_range: of the scores it gives, sign turned; ``None`` = not told.
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
        self._by_file: dict[str, list[str]] = {}
        for identity in scores:
            self._by_file.setdefault(os.path.basename(identity), []).append(identity)

    def modules(self) -> list[torch.nn.Module]:
        """None: nothing is computed here."""
        return []

    def scores_for(self, ids: Sequence[str]) -> list[Score]:
        """Look scores up.

        Args:
            ids: ids of images, or their paths. An id that the file does not have is looked for by its file
                name.

        Returns:
            One score an id, in order, higher = better; one that is missing or no number has ``error``.
        """
        return [self._look_up(str(identity)) for identity in ids]

    def score(
        self,
        images: Sequence[Any] | Any,
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
        workers: int = 2,
        references: Sequence[Any] | Any = None,
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
        found = []
        for i, image in enumerate(items):
            if isinstance(image, str | Path):
                found.append(self._look_up(str(image)))
            else:
                found.append(self._error(f"[{i}]", "scores of a file are found by an image's path"))
        if progress is not None:
            progress(len(found))
        return found

    def _look_up(self, asked: str) -> Score:
        identity = asked
        if asked not in self._scores:
            same = self._by_file.get(os.path.basename(asked), [])
            if len(same) > 1:
                return self._error(
                    asked, f"its file name stands for several rows of the file: {some(same, 3)}"
                )
            if not same:
                return self._error(asked, "the file has no score of it")
            identity = same[0]
        text = self._scores[identity].strip()
        try:
            value = float(text)
        except ValueError:
            return self._error(asked, f"the file holds no number for it ({text!r})")
        if not math.isfinite(value):
            return self._error(asked, f"the file holds {text} for it")
        return Score(self._sign * value + 0.0, path=asked, model=self.name)

    def _error(self, path: str, why: str) -> Score:
        return Score(None, error=why, path=path, model=self.name)


def load(uri: Uri, device: str | None = None) -> TableScorer:
    """Read a table of scores.

    Args:
        uri: ``csv:PATH`` with the options ``column`` (of the scores; ``score``), ``id`` (column of the ids;
            ``id``), ``higher`` (whether more is better; ``true``), ``training_sets`` (joined by commas;
            empty = none, left out = not known), ``score_range`` (``LOW,HIGH``; ``1,5`` says that they are on
            the MOS scale) and ``name`` (what tables call it; ``csv:`` and the file's name).
        device: not used.

    Raises:
        UriError: an option that cannot be read.
        ScoreTableError: no such file or column, or an id twice.
    """
    options, path = uri.take(OPTIONS), Path(uri.id)
    if not path.is_file():
        raise ScoreTableError(f"{path} does not exist (looked for from {Path.cwd()})")
    table = read_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    key, column = options.get("id", "id"), options.get("column", "score")
    need_columns(table, (key, column), path)
    twice = table.loc[table[key].duplicated(), key]
    if len(twice):
        raise ScoreTableError(f"{path} names an image twice: {some(twice)}")
    higher = truth(str(uri), options, "higher", default=True)
    sets = options.get("training_sets")
    digest = hashlib.sha256(path.read_bytes() + f"\n{key} {column} {higher}".encode()).hexdigest()
    return TableScorer(
        name=options.get("name", f"csv:{path.name}"),
        scores=dict(zip(table[key], table[column], strict=True)),
        revision=digest[:12],
        higher=higher,
        training_sets=None if sets is None else tuple(s for s in sets.split(",") if s),
        score_range=number_pair(str(uri), options, "score_range") if "score_range" in options else None,
    )


def list_metrics(offline: bool = False) -> list[str]:
    """None: the names are paths."""
    return []
