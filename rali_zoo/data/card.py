"""What is known of a data set before a file is opened. No heavy import: ``rali-zoo list`` reads this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from rali_zoo.errors import ConfigError, near_miss
from rali_zoo.types import MOS_RANGE

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Task = Literal["NR", "FR"]
Domain = Literal["authentic", "distorted", "generated", "synthetic"]
Question = Literal["quality", "aesthetics"]
Protocol = Literal["official", "deqa", "whole", "kfold", "random"]

TASKS: tuple[str, ...] = get_args(Task)
DOMAINS: tuple[str, ...] = get_args(Domain)
QUESTIONS: tuple[str, ...] = get_args(Question)
PROTOCOLS: tuple[str, ...] = get_args(Protocol)

Native = TypeVar("Native", float, "np.ndarray", "pd.Series")


@dataclass(frozen=True)
class DatasetCard:
    """A data set's facts. The scale of its scores is written here and nowhere else.

    Attributes:
        name: what references say; lower case.
        title: the name its authors gave it.
        task: ``NR`` = photographs on their own, ``FR`` = each image has a reference image.
        domain: ``authentic`` = distorted by the camera, ``distorted`` = on purpose, from pristine
            images, ``generated`` = made by a generative model, ``synthetic`` = images with
            pseudo-MOS from a rule, no human was asked.
        n_images: scored images of the whole set.
        mos_range: (lowest, highest) native score: the nominal scale where there is one, else the
            published extremes. Never computed from the labels at hand.
        higher_is_better: ``False`` for DMOS.
        protocols: how its rows may be split, see :mod:`rali_zoo.data.splits`.
        default_protocol: the one used when a reference names none.
        content_disjoint: several images share a reference content, so that splits must keep contents apart.
        licence: terms of use, as its authors state them.
        citation: the paper to cite.
        url: where to get it.
        layout: the folder tree the reader expects.
        synthetic: the labels come from a rule; every number measured on it must say so.
        raters: individual ratings behind a MOS, on average, where published and where ``std`` is that of the
            ratings; ``None`` where not known.
        question: what people were asked: ``quality`` (how well it is reproduced) or ``aesthetics`` (how well they like
            it). Scores of two questions are never pooled.
        note: what could not be checked against the authors' files, and what else to know before use.

    Raises:
        ConfigError: a card that contradicts itself.
    """

    name: str
    title: str
    task: Task
    domain: Domain
    n_images: int
    mos_range: tuple[float, float]
    higher_is_better: bool
    protocols: tuple[Protocol, ...]
    default_protocol: Protocol
    content_disjoint: bool
    licence: str
    citation: str
    url: str
    layout: str
    synthetic: bool = False
    raters: float | None = None
    question: Question = "quality"
    note: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            self._refuse("name", self.name, "a name without blanks around it")
        self._check_words()
        if self.n_images < 1:
            self._refuse("n_images", self.n_images, "a positive number")
        if len(self.mos_range) != 2 or not all(math.isfinite(v) for v in self.mos_range):
            self._refuse("mos_range", self.mos_range, "two finite numbers")
        if self.mos_range[0] >= self.mos_range[1]:
            hint = "(lowest, highest); the direction is given by higher_is_better"
            self._refuse("mos_range", self.mos_range, hint)
        if self.raters is not None and not self.raters >= 1:
            self._refuse("raters", self.raters, "1 or more, or None")

    def _check_words(self) -> None:
        protocols = tuple(("protocols", p, PROTOCOLS) for p in self.protocols)
        words = (
            ("task", self.task, TASKS),
            ("domain", self.domain, DOMAINS),
            ("question", self.question, QUESTIONS),
        )
        for field, value, known in (*words, *protocols):
            if value not in known:
                self._refuse(field, value, near_miss(str(value), known))
        if len(set(self.protocols)) != len(self.protocols):
            self._refuse("protocols", self.protocols, "each protocol once")
        if self.default_protocol not in self.protocols:
            self._refuse("default_protocol", self.default_protocol, f"one of its protocols {self.protocols}")
        if self.domain == "synthetic" and not self.synthetic:
            self._refuse("synthetic", self.synthetic, "synthetic=True, as its domain is 'synthetic'")

    def _refuse(self, field: str, value: object, wanted: str) -> None:
        raise ConfigError(f"data set card {self.name!r}: {field}={value!r} cannot be; give {wanted}")

    def to_mos(self, native: Native) -> Native:
        """Native scores as MOS in [1, 5], higher is better (a DMOS is flipped); any shape."""
        low, high = self.mos_range
        share = (native - low) / (high - low)
        span = MOS_RANGE[1] - MOS_RANGE[0]
        return MOS_RANGE[0] + span * share if self.higher_is_better else MOS_RANGE[1] - span * share

    def to_std(self, native: Native) -> Native:
        """Native standard deviations on the scale of :meth:`to_mos`; any shape."""
        low, high = self.mos_range
        return native * ((MOS_RANGE[1] - MOS_RANGE[0]) / (high - low))


def one_question(cards: Sequence[DatasetCard]) -> None:
    """Refuse to pool scores of data sets whose raters were asked different things.

    Args:
        cards: of the data sets.

    Raises:
        ConfigError: some are of quality, some of aesthetics.
    """
    by_question: dict[str, list[str]] = {}
    for card in cards:
        by_question.setdefault(card.question, []).append(card.name)
    if len(by_question) > 1:
        said = "; ".join(f"{', '.join(names)}: {question}" for question, names in by_question.items())
        raise ConfigError(
            f"these data sets answer different questions, and their scores are not pooled ({said}); train and test on "
            "sets of one question at a time"
        )
