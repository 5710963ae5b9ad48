"""The stages between a list of images and their scores: prepare in threads, score in batches.

Threads, not processes: reading, decoding and resizing leave Python's lock, and what is prepared needs no
copy to get to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from rali_zoo.data.sources import Item
from rali_zoo.data.video import Clip, is_video, pool_frames, sample_frames
from rali_zoo.errors import ConfigError, ImageDecodeError
from rali_zoo.types import Score

if TYPE_CHECKING:
    from rali_zoo.models.scorer import Waiting
    from rali_zoo.protocols import Scorer
    from rali_zoo.scoring.runtime import Decode


class Slice(NamedTuple):
    """Images that go through the model together; which ones is a matter of their place in the list only.

    Attributes:
        part: number of the part of the table that they belong to.
        start: place of the first of them in that part.
        items: the images.
    """

    part: int
    start: int
    items: list[Item]


def slices(parts: Iterable[tuple[int, list[Item]]], batch_size: int) -> Iterator[Slice]:
    """Cut parts into batches; none spans two parts, so a part is scored alike whenever it is."""
    for number, items in parts:
        for start in range(0, len(items), batch_size):
            yield Slice(number, start, items[start : start + batch_size])


@dataclass(frozen=True)
class Stages:
    """What is done to an image.

    Attributes:
        prepare: reads, decodes and cuts one image, or returns why it cannot; runs in threads.
        start: begins to score what ``prepare`` returned, under the names given; what it returns waits for one score
            each.
        ahead: whether to start the next batch before the scores of one are waited for.
    """

    prepare: Callable[[Item], Any]
    start: Callable[[Sequence[Any], Sequence[str]], Waiting]
    ahead: bool = False

    def score(self, prepared: Sequence[object], names: Sequence[str]) -> list[Score]:
        """One score for each of what ``prepare`` returned, under the names given."""
        return self.start(prepared, names)()


class Frames(list[Any]):
    """What ``prepare`` makes of a video: as many prepared images as frames are looked at."""


def make_stages(scorer: Scorer, decode: Decode = "exact", clip: Clip | None = None) -> Stages:
    """The stages of a scorer.

    Args:
        scorer: one of :func:`rali_zoo.load_model`, or anything with the interface
            :class:`~rali_zoo.protocols.Scorer`, which gets paths (bytes, of a shard) and decodes for itself.
        decode: ``exact`` or ``fast``, see :mod:`rali_zoo.scoring.decode`.
        clip: which frames of a video are looked at, and how their scores become one.

    Raises:
        ConfigError: ``fast`` for a scorer that decodes for itself.
    """
    from rali_zoo.models.scorer import NetworkScorer

    if not isinstance(scorer, NetworkScorer):
        if decode == "fast":
            raise ConfigError(f"--decode fast: {scorer.name} decodes images itself; leave it out")
        plain = Stages(_source, _at_once(lambda sources, names: _score_sources(scorer, sources, names)))
        return _with_videos(plain, lambda frame: frame, clip or Clip())
    prepare: Callable[[Any], Any] = scorer.prepare
    if decode == "fast":
        from rali_zoo.scoring.preprocess import FastView

        prepare = FastView(scorer.network.view, scorer.network.preprocess, scorer.noted).prepare

    def ready(item: Item) -> Any:
        source = _source(item)
        return source if isinstance(source, ImageDecodeError) else prepare(source)

    return _with_videos(Stages(ready, scorer.start, scorer.is_asynchronous), scorer.prepare, clip or Clip())


def _with_videos(stages: Stages, cut: Callable[[Any], Any], clip: Clip) -> Stages:
    """Stages that take videos too: frames go through as images, and their scores become one."""

    def prepare(item: Item) -> Any:
        if not (isinstance(item, Item) and is_video(item.path)):  # the service hands over decoded images
            return stages.prepare(item)
        try:
            return Frames(cut(frame) for frame in sample_frames(item.source(), clip))
        except ImageDecodeError as error:
            return error

    def start(prepared: Sequence[Any], names: Sequence[str]) -> Waiting:
        groups = [one if isinstance(one, Frames) else [one] for one in prepared]
        flat = [(image, name) for group, name in zip(groups, names, strict=True) for image in group]
        waiting: list[Waiting] = []
        for first in range(0, len(flat), len(prepared) or 1):  # no batch is larger than one of images
            images, own = zip(*flat[first : first + len(prepared)], strict=True)
            waiting.append(stages.start(images, own))

        def finish() -> list[Score]:
            each = (score for scores in waiting for score in scores())
            return [
                pool_frames([next(each) for _ in one], clip.pooling, name)
                if isinstance(one, Frames)
                else next(each)
                for one, name in zip(prepared, names, strict=True)
            ]

        return finish

    return Stages(prepare, start, stages.ahead)


def _at_once(
    score: Callable[[Sequence[Any], Sequence[str]], list[Score]],
) -> Callable[[Sequence[Any], Sequence[str]], Waiting]:
    """What starts a batch by scoring it."""

    def start(prepared: Sequence[Any], names: Sequence[str]) -> Waiting:
        scores = score(prepared, names)
        return lambda: scores

    return start


def _source(item: Item) -> str | bytes | ImageDecodeError:
    try:
        return item.source()
    except ImageDecodeError as error:
        return error


def _score_sources(scorer: Scorer, sources: Sequence[Any], names: Sequence[str]) -> list[Score]:
    """Through :meth:`Scorer.score`, which calls images in memory by their position."""
    good = [i for i, source in enumerate(sources) if not isinstance(source, ImageDecodeError)]
    scores = scorer.score([sources[i] for i in good], batch_size=len(good)) if good else []
    found = {i: replace(score, path=names[i]) for i, score in zip(good, scores, strict=True)}
    for i, source in enumerate(sources):
        if i not in found:
            found[i] = Score(None, error=str(source), path=names[i], model=scorer.name)
    return [found[i] for i in range(len(sources))]


def run(batches: Iterable[Slice], stages: Stages, workers: int) -> Iterator[tuple[Slice, list[Score]]]:
    """Score batches in their order, preparing the next while one is in the model; memory stays flat."""
    from rali_zoo.models.scorer import in_turn, overlapped

    waiting: list[Slice] = []

    def items() -> Iterator[list[Item]]:
        for batch in batches:
            waiting.append(batch)
            yield batch.items

    def started() -> Iterator[tuple[Slice, Waiting]]:
        for _, prepared in overlapped(items(), stages.prepare, workers):
            batch = waiting.pop(0)
            yield batch, stages.start(prepared, [item.path for item in batch.items])

    return in_turn(started(), stages.ahead)
