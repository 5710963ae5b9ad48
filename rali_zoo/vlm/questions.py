"""Which question is asked about which image, and what a right answer would be."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from rali_zoo.errors import ConfigError
from rali_zoo.types import Batch
from rali_zoo.vlm.parsing import NO_DISTORTION, TAG
from rali_zoo.vlm.prompts import Prompt, Vocabulary, prompt, score_prompt, vocabulary, write_completion

if TYPE_CHECKING:
    import pandas as pd

#: What is imitated: descriptions alone (RACT's labels), with the answer behind them, or the answer alone.
Answers = Literal["text", "text-and-score", "score"]


@dataclass(frozen=True)
class Question:
    """One image and what is asked about it.

    Attributes:
        asked: the prompt.
        dataset: reference of the data set.
        id: of the image.
        mos: in [1, 5]; NaN where unknown.
        distortion: class as the data set names it; empty where unknown.
        level: its severity as the data set writes it.
        text: a description; empty outside supervised training.
    """

    asked: Prompt
    dataset: str
    id: str
    mos: float
    distortion: str
    level: str
    text: str


class Tasks:
    """Scoring, and where it is asked for, naming the degradation.

    Args:
        score: name of the prompt of the score task.
        degradation: name of a prompt of the degradation task; ``None`` for the score task alone.
        share: probability in [0, 1] that an image of known degradation is asked about it. An image without
            a MOS always is, unless no answer is wanted.
        answers: whether :meth:`answer` is the description alone, with the score or degradation behind it, or
            that behind an empty description.

    Raises:
        UnknownNameError: no such prompt.
        ConfigError: a prompt of another task than it is given for, or a share outside [0, 1].
    """

    def __init__(
        self, score: str, degradation: str | None, share: float, answers: Answers = "text-and-score"
    ) -> None:
        self.score = score_prompt(score)
        self.degradation = None if degradation is None else prompt(degradation)
        self.share, self.answers = share, answers
        if self.degradation is not None and self.degradation.task != "degradation":
            raise ConfigError(f"degradation_prompt={degradation!r} does not ask about the degradation")
        if not 0 <= share <= 1:
            raise ConfigError(f"degradation_share={share} is in [0, 1]")

    @property
    def words(self) -> Vocabulary | None:
        """Classes and severities of the degradation task."""
        return None if self.degradation is None else vocabulary(self.degradation.vocabulary)

    def ask(self, batch: Batch, seed: int) -> list[Question]:
        """A question for each image; the same seed gives the same ones.

        Raises:
            ConfigError: an image that has neither a MOS nor a degradation that can be asked about.
        """
        count, rng = len(batch["id"]), random.Random(seed)
        distortions = batch.get("distortion", [""] * count)
        levels = batch.get("level", ["0"] * count)
        texts = batch.get("text", [""] * count)
        origins = batch.get("prompt", [""] * count)
        questions = []
        for i, mos in enumerate(batch["mos"].tolist()):
            known = self.degradation is not None and self._truth(distortions[i], levels[i]) is not None
            lucky = rng.random() < self.share  # drawn for every image, so that one does not shift the rest
            blind = math.isnan(mos) and self.answers != "text"  # nothing is known that could be answered
            if blind and not known:
                raise ConfigError(
                    f"{batch['id'][i]} of {batch['dataset'][i]} has no MOS and no degradation to ask about; "
                    "leave such images out of data.train, or give model.degradation_prompt"
                )
            asks = known and (lucky or blind)
            asked = self.degradation if asks and self.degradation is not None else self.score.of(origins[i])
            questions.append(
                Question(asked, batch["dataset"][i], batch["id"][i], mos, distortions[i], levels[i], texts[i])
            )
        return questions

    def _truth(self, distortion: str, level: str) -> tuple[str, int] | None:
        """The strongest class that the vocabulary knows, with its level; ``None`` where it knows none."""
        words, names = self.words, [n.strip() for n in distortion.split(";") if n.strip()]
        if words is None or not names:
            return None
        parts = [part.strip() for part in level.split(";")]
        given = parts if len(parts) == len(names) else parts[:1] * len(names)
        found = [
            (words.read_class(n), int(p) if p.isdigit() else 0) for n, p in zip(names, given, strict=True)
        ]
        known = [(n, p) for n, p in found if n is not None and (n == NO_DISTORTION or p > 0)]
        return max(known, key=lambda pair: pair[1]) if known else None

    def answer(self, question: Question) -> str:
        """The completion to imitate; with ``answers="text"`` it stops where the score would begin, and with
        ``answers="score"`` the description is empty.

        Raises:
            ConfigError: an image without a description, or tags in it.
        """
        text = "" if self.answers == "score" else question.text
        if not text and self.answers != "score":
            raise ConfigError(
                f"{question.id} of {question.dataset} has no description to imitate; give data.descriptions, "
                "such as 'labels', 'attributes' or a table"
            )
        if self.answers == "text":
            if TAG.search(question.text):
                raise ConfigError(f"the description of {question.id} has tags; give the text between them")
            return f"<think>{question.text.strip()}</think>"
        if question.asked.task == "score":
            return write_completion(text, question.mos, style=question.asked.style)
        truth = self._truth(question.distortion, question.level)
        if truth is None:  # never asked: see ask()
            raise ConfigError(f"{question.id} of {question.dataset} has no degradation to name")
        return write_completion(text, distortion=truth[0], level=truth[1], words=self.words)


def ask_rows(
    tasks: Tasks, frames: Mapping[str, pd.DataFrame], seed: int
) -> tuple[pd.DataFrame, list[Prompt]]:
    """The images of several data sets in one table, and what is asked about each, once and for all.

    Args:
        tasks: which questions there are.
        frames: rows of each data set by its reference, as readers give them.
        seed: of the choice of the question.

    Returns:
        The rows of all with the column ``dataset``, and as many prompts.

    Raises:
        ConfigError: an image that nothing can be asked about.
    """
    import pandas as pd

    rows = pd.concat([frame.assign(dataset=ref) for ref, frame in frames.items()], ignore_index=True)
    rows = rows.assign(level=rows["level"].astype(str))
    batch: Any = {name: rows[name].to_list() for name in ("id", "dataset", "distortion", "level")}
    batch["mos"] = torch.tensor(rows["mos"].to_numpy(float))
    return rows, [question.asked for question in tasks.ask(batch, seed)]
