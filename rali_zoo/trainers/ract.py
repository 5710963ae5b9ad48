"""RACT: one vision-language model for several data sets whose scores disagree, taught by texts.

"Reasoning as representation" (ICLR 2026, arXiv 2510.11369), appendix A: a reasoner is reinforced on each data
set alone, each describes the images of its own, and one model then imitates all descriptions. Words say
what is wrong with an image; what that costs in points is where annotators differ. Only the vision encoder
learns by default, and labels without scores do as well as labels with them (table 5 of the paper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from rali_zoo.metrics.correlation import srcc
from rali_zoo.models.vlm import Scoring
from rali_zoo.rl.objective import Objective
from rali_zoo.trainers.reasoner import Reasoner
from rali_zoo.trainers.reasoner_options import Answers, Schedule, Tuning, as_settings, plain
from rali_zoo.types import Batch
from rali_zoo.vlm.expectation import expected_scores
from rali_zoo.vlm.generation import RolloutEngine, evaluating
from rali_zoo.vlm.model import VLM, Prompts
from rali_zoo.vlm.parsing import parse
from rali_zoo.vlm.prompts import Prompt, messages

if TYPE_CHECKING:
    import pandas as pd


class RACT(Reasoner):
    """Cross-domain supervised fine-tuning on the texts of per-domain reasoners.

    ``data.train`` names the data sets and ``data.descriptions`` the tables that ``rali-zoo describe`` wrote
    of each with its own reasoner. Tests give two scores: the one that the model writes under the image, and
    in the column ``text_score`` the one that it writes when it is shown its own description without the
    image.

    Args:
        vlm: as in :class:`~rali_zoo.trainers.Reasoner`.
        init_from: checkpoint of a reasoner of the same model: the eyes that go on learning, and the language
            model that turns descriptions into scores. Which data set's matters little (table 1 of the paper).
        vision_from: as in :class:`~rali_zoo.trainers.Reasoner`.
        prompt: name of the question about the score.
        answers: ``text`` = descriptions alone: what ``init_from`` knows of scores is kept.
            ``text-and-score`` = with the image's MOS on [1, 5] behind them. ``score`` = the MOS alone, the
            control without descriptions.
        tuning: which weights learn; the vision encoder (with what joins it to the language model) if
            ``null``. ``{freeze_vision: true}`` tunes the language model, ``{freeze_vision: false}`` both.
        schedule: learning rate and optimizer.
        scoring: how a score is made of what is written, with and without the image.
        max_completion_length: limit of length in tokens, everywhere.
        seed: of the samples.

    Raises:
        ConfigError: settings that do not fit each other.
        CheckpointError: weights that cannot be read.
    """

    def __init__(
        self,
        vlm: str = "rali:vlm-tiny",
        init_from: str | None = None,
        vision_from: str | None = None,
        prompt: str = "score-short",
        answers: Answers = "text-and-score",
        tuning: Tuning | None = None,
        schedule: Schedule | None = None,
        scoring: Scoring | None = None,
        max_completion_length: int = 256,
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        learns = Tuning(freeze_vision=False, freeze_language=True)
        super().__init__(
            vlm,
            "sft",
            init_from,
            vision_from,
            prompt=prompt,
            answers=answers,
            tuning=learns if tuning is None else as_settings(Tuning, tuning),
            schedule=schedule,
            scoring=scoring,
            grpo=Objective(max_completion_length=max_completion_length),
            seed=seed,
        )
        self._set_hparams({k: plain(v) for k, v in given.items()})

    def score_texts(self, texts: list[str]) -> Tensor:
        """(N,) scores in [1, 5] of completions that the model is shown without an image."""
        limit = self.grpo.max_completion_length
        return score_texts(self.vlm, self.engine, texts, self.tasks.score, self.scoring, limit)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores and texts of a test batch, and the scores that the texts alone tell."""
        scored = self.network.scored(batch["image"])
        alone = self.score_texts(scored.texts).tolist()
        self.evaluation.add(
            dataloader_idx, batch, scored.prediction, {"text": scored.texts, "text_score": alone}
        )

    def test_metrics(self, frame: pd.DataFrame) -> dict[str, float]:
        """Adds ``srcc_from_text`` and the share ``failed_from_text``; ``text_score`` is a column of the table."""
        return {**super().test_metrics(frame), **text_score_metrics(frame)}


def text_score_metrics(frame: pd.DataFrame) -> dict[str, float]:
    """How well the texts' scores agree with people.

    Args:
        frame: columns mos and text_score; NaN where unknown or unreadable.

    Returns:
        ``srcc_from_text`` over the texts whose score can be read, and the share ``failed_from_text`` in
        [0, 1] of the others.
    """
    read = frame[frame["text_score"].notna()]
    known = read[read["mos"].notna()]
    return {
        "srcc_from_text": srcc(known["text_score"].to_numpy(float), known["mos"].to_numpy(float)),
        "failed_from_text": 1 - len(read) / max(len(frame), 1),
    }


@torch.no_grad()
def score_texts(
    vlm: VLM, engine: RolloutEngine, texts: list[str], asked: Prompt, scoring: Scoring, limit: int
) -> Tensor:
    """Scores that a model gives descriptions when it sees no image.

    The question is asked without an image, the description is put into the model's mouth, and it goes on to
    its verdict. RACT's claim that reasoning carries the score stands or falls with this number; Kyoto's
    arXiv 2601.02441 finds that it drops a lot in models that were not trained for it.

    Args:
        vlm: the model.
        engine: what continues prompts.
        texts: N completions with their ``<think>…</think>``.
        asked: a prompt of the score task.
        scoring: ``expectation`` as there; ``greedy`` and ``samples`` read the likeliest verdict.
        limit: of length in tokens.

    Returns:
        (N,) in [1, 5], NaN for a completion without a description, or a verdict that cannot be read.
    """
    thoughts = [parse(text).think for text in texts]
    rows = [row for row, thought in enumerate(thoughts) if thought]
    found = torch.full((len(texts),), float("nan"))
    if not rows:
        return found
    prompts = _without_image(vlm, asked, [f"<think>{thoughts[row]}</think>" for row in rows])
    done = engine.generate(prompts, 1, limit, 0.0, 0)
    if scoring.kind == "expectation":
        with evaluating(vlm.model):
            found[rows] = expected_scores(vlm, done)[0]
    else:
        found[rows] = torch.tensor([float("nan") if p.score is None else p.score for p in done.parsed])
    return found


def _without_image(vlm: VLM, asked: Prompt, begun: list[str]) -> Prompts:
    """Prompts that ask the question alone and end with the beginning of the answer."""
    turns: list[Any] = [
        {**turn, "content": [part for part in turn["content"] if part["type"] != "image"]}
        for turn in messages(asked)
    ]
    write: Any = vlm.processor.apply_chat_template
    question = write(turns, add_generation_prompt=True, tokenize=False)
    texts = [question + answer for answer in begun]
    inputs = cast(Any, vlm.processor)(text=texts, padding=True, return_tensors="pt")
    tensors = {name: v.to(vlm.model.device) for name, v in inputs.items() if isinstance(v, Tensor)}
    return Prompts(tensors, tuple(texts), torch.empty(len(texts), 3, 0, 0, dtype=torch.uint8))
