"""Attributes beside scores: what can be measured on an image, with the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rali_zoo.data.attributes import measure, shown
from rali_zoo.data.images import load_image
from rali_zoo.data.sources import Item
from rali_zoo.data.video import is_video
from rali_zoo.errors import ImageDecodeError
from rali_zoo.scoring.pipeline import Stages
from rali_zoo.types import Score

if TYPE_CHECKING:
    from rali_zoo.models.scorer import Waiting


def measured(stages: Stages) -> Stages:
    """Stages whose scores have attributes too; images are decoded once more for them, in the same threads.

    A video has none, nor has an image without a score.
    """

    def prepare(item: Item) -> tuple[Any, dict[str, float]]:
        try:
            values = {} if is_video(item.path) else measure(load_image(item.source()))
        except ImageDecodeError:  # the stages say why
            values = {}
        return stages.prepare(item), values

    def start(prepared: Sequence[tuple[Any, dict[str, float]]], names: Sequence[str]) -> Waiting:
        scores = stages.start([ready for ready, _ in prepared], names)
        return lambda: [_with(one, values) for one, (_, values) in zip(scores(), prepared, strict=True)]

    return Stages(prepare, start, stages.ahead)


def _with(score: Score, values: dict[str, float]) -> Score:
    if score.score is None or not values:
        return score
    attributes, words = shown(values)
    return replace(score, attributes=attributes, words=words)
