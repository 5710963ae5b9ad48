"""What ``rali-zoo score`` does with all scores once they are there: choose, show, and hand on to other programs."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rali_zoo.errors import ConfigError
from rali_zoo.outputs import printable

if TYPE_CHECKING:
    from rali_zoo.data.sources import Item
    from rali_zoo.protocols import Scorer
    from rali_zoo.scoring.pipeline import Stages
    from rali_zoo.scoring.runtime import Sort
    from rali_zoo.scoring.selection import ScoredImage, Section, Share
    from rali_zoo.types import Score


@dataclass(frozen=True)
class Sorting:
    """The options of ``rali-zoo score`` that need all scores.

    Attributes:
        worst: show only the worst: a number such as 20, or a share such as 10%.
        best: show only the best: a number, or a share; with --worst, both.
        by_folder: choose, and count stars, from each folder instead of from all images.
        duplicates: keep near-duplicates (bursts, copies) together; a group of them counts as one; needs the extra
            'sort'.
        sheet: a contact sheet of what is shown: one .html file that opens from disk.
        xmp: write 1 to 5 stars, by place among all images, into a sidecar beside each: IMG.jpg.xmp for darktable and
            digiKam, IMG.xmp for adobe. Images are not touched, nor ratings that are there.
        maps: a folder for overlays of what is shown: where in the image quality is low.
    """

    worst: str | None = None
    best: str | None = None
    by_folder: bool = False
    duplicates: bool = False
    sheet: Path | None = None
    xmp: Literal["darktable", "adobe"] | None = None
    maps: Path | None = None

    @property
    def wanted(self) -> bool:
        """Whether any of it was asked for."""
        return self != Sorting()

    @property
    def chooses(self) -> bool:
        """Whether what is shown is something else than all images as they were found."""
        return bool(self.worst or self.best or self.by_folder or self.duplicates)

    def check(self, overwrite: bool) -> None:
        """Refuse what cannot be done, before anything is scored.

        Args:
            overwrite: whether a sheet that is there is replaced.

        Raises:
            ConfigError: a share that is none, or a sheet that cannot be written.
            MissingExtraError: imagehash is not installed.
        """
        import importlib.util

        from rali_zoo.errors import MissingExtraError
        from rali_zoo.scoring.sheet import check_sheet

        self.shares()
        if self.sheet is not None:
            check_sheet(self.sheet, 0)
            if self.sheet.exists() and not overwrite:
                raise ConfigError(f"{self.sheet} is there already; remove it, or give --overwrite")
        if self.maps is not None and not overwrite and self.maps.exists() and any(self.maps.iterdir()):
            raise ConfigError(f"--maps {self.maps} is no empty folder; empty it, or give --overwrite")
        if self.duplicates and importlib.util.find_spec("imagehash") is None:
            raise MissingExtraError("imagehash", "sort")

    def shares(self) -> tuple[Share | None, Share | None]:
        """How many of the worst, and of the best."""
        from rali_zoo.scoring.selection import Share

        worst = Share.parse(self.worst, "--worst") if self.worst else None
        return worst, Share.parse(self.best, "--best") if self.best else None


@dataclass(frozen=True)
class After:
    """What is done with all scores.

    Attributes:
        sorting: what was asked for.
        scorer: that gave them.
        stages: of the scorer.
        batch_size: images a forward pass.
        workers: threads that decode.
        overwrite: whether a sheet, or maps, that are there are replaced.
    """

    sorting: Sorting
    scorer: Scorer
    stages: Stages
    batch_size: int
    workers: int
    overwrite: bool

    def finish(
        self,
        found: Iterable[tuple[Item, Score]],
        order: Sort,
        show: Callable[[Score], str],
        heads: bool = True,
        explained: bool = True,
    ) -> None:
        """Choose, print, and write what was asked for.

        Args:
            found: all images with their scores.
            order: of images where all are shown; best first where none was asked for.
            show: a line of one score.
            heads: whether parts of what is printed have headings.
            explained: whether the scores have their explanations.
        """
        from rali_zoo.scoring.selection import ScoredImage, near_duplicates, rank, sections
        from rali_zoo.scoring.sheet import check_sheet

        sorting = self.sorting
        rows = rank((ScoredImage(item, score) for item, score in found), sorting.by_folder)
        groups = near_duplicates(rows, self.workers) if sorting.duplicates else None
        worst, best = sorting.shares()
        parts = sections(
            rows, worst, best, sorting.by_folder, "worst" if order == "worst" else "best", groups
        )
        if sorting.chooses:
            _print(parts, show, heads)
        if sorting.sheet is not None:
            check_sheet(sorting.sheet, sum(len(part.rows) for part in parts))
        if sorting.maps is not None or (sorting.sheet is not None and not explained):
            parts = self._again(parts)
        if sorting.xmp is not None:
            _rate(rows, sorting.xmp)
        if sorting.sheet is not None:
            self._sheet(sorting.sheet, parts, [row.score for row in rows if row.score.score is None])

    def _sheet(self, path: Path, parts: Sequence[Section], failed: Sequence[Score]) -> None:
        from rali_zoo.scoring.sheet import write_sheet
        from rali_zoo.serving.engine import caution

        scorer = self.scorer
        said, ends = caution(scorer), scorer.score_range
        write_sheet(path, parts, failed, scorer.name, said, ends, self.overwrite, self.workers)
        print(f"{sum(len(part.rows) for part in parts)} images on {path}", file=sys.stderr)

    def _again(self, parts: Sequence[Section]) -> list[Section]:
        """Score what is shown once more, for maps, and for explanations that a table does not keep."""
        from rali_zoo.scoring.pipeline import run, slices

        items = list({row.item: None for part in parts for row in part.rows})
        scores: dict[Item, Score] = {}
        for batch, new in run(slices([(0, items)], self.batch_size), self.stages, self.workers):
            scores |= zip(batch.items, new, strict=True)
        if self.sorting.maps is not None:
            scores = {item: self._mapped(item, score, self.sorting.maps) for item, score in scores.items()}
            print(
                f"{sum(s.map is not None for s in scores.values())} maps in {self.sorting.maps}",
                file=sys.stderr,
            )
        return [
            replace(part, groups=[[row._replace(score=scores[row.item]) for row in g] for g in part.groups])
            for part in parts
        ]

    def _mapped(self, item: Item, score: Score, folder: Path) -> Score:
        """A score with its map, which is drawn over the image in a file of the folder."""
        import io

        from rali_zoo.data.images import load_image
        from rali_zoo.models.maps import overlay, where, with_map
        from rali_zoo.outputs import write_new

        if score.score is None:
            return score
        found = with_map(self.scorer, item.source(), score)
        if found.map is None:
            print(f"no map of {printable(item.path)}: it is too small, or no image", file=sys.stderr)
            return found
        buffer = io.BytesIO()
        overlay(load_image(item.source()), found).save(buffer, "PNG")
        name = re.sub(r"[^\w.-]+", "_", item.path).strip("_")[-120:]
        known = hashlib.blake2b(os.fsencode(item.path), digest_size=4).hexdigest()
        write_new(folder / f"{name}.{known}.png", buffer.getvalue(), self.overwrite)
        print(f"{printable(item.path)}: {printable(where(found))}")
        return found


def _print(parts: Sequence[Section], show: Callable[[Score], str], heads: bool) -> None:
    for part in parts:
        if heads:
            low, middle, high = part.scores
            print(f"\n{printable(part.title)}, of {part.images} (10 % below {low:.2f}, half below {middle:.2f}, "
                  f"10 % above {high:.2f})")  # fmt: skip
        for group in part.groups:
            print(show(group[0].score))
            for row in group[1:]:
                print(f"  near-duplicate {show(row.score)}" if heads else show(row.score))


def _rate(rows: Sequence[ScoredImage], naming: Literal["darktable", "adobe"]) -> None:
    from rali_zoo.scoring.sidecars import write_ratings

    rated = write_ratings(rows, naming)
    for row in rated:
        if row.outcome == "refused":
            print(f"no rating for {printable(row.path)}: {printable(row.reason)}", file=sys.stderr)
    counts = Counter(row.outcome for row in rated)
    said = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    print(f"ratings in sidecars: {said}", file=sys.stderr)
