"""RACT: one vision-language model for several data sets whose scores disagree, taught by texts.

"Reasoning as representation" (ICLR 2026, arXiv 2510.11369), appendix A: a reasoner is reinforced on each data
set alone, each describes the images of its own, and one model then imitates all descriptions. Words name
what is wrong with an image; what that costs in points is where annotators differ. Only the vision encoder
learns by default, and labels without scores do as well as labels with them (table 5 of the paper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError
from rali_zoo.metrics.correlation import srcc
from rali_zoo.models.vlm import Scoring, parsed_scores
from rali_zoo.trainers.reasoner import ReasonerBase, Schedule, as_settings
from rali_zoo.types import Batch
from rali_zoo.vlm.expectation import expected_scores
from rali_zoo.vlm.generation import Engine, evaluating
from rali_zoo.vlm.model import VLM, Prompts
from rali_zoo.vlm.parsing import parse
from rali_zoo.vlm.prompts import Prompt, messages
from rali_zoo.vlm.questions import Answers, Tasks
from rali_zoo.vlm.tuning import Tuning

if TYPE_CHECKING:
    import pandas as pd


class RACT(ReasonerBase):
    """Cross-domain supervised fine-tuning on the texts of per-domain reasoners.

    ``data.train`` names the data sets and ``data.descriptions`` the tables that ``rali-zoo describe`` wrote
    of each with its own reasoner. Tests give two scores: the one that the model writes under the image, and
    in the column ``text_score`` the one that it writes when it is shown its own description without the
    image.

    Args:
        vlm: as in :class:`~rali_zoo.trainers.Reasoner`.
        init_from: checkpoint of a reasoner of the same model: the vision encoder that goes on learning, and the
            language model that turns descriptions into scores. Which data set's matters little (table 1 of the paper).
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
        if max_completion_length < 1:
            raise ConfigError(f"model.max_completion_length={max_completion_length} is at least 1")
        vision_alone = Tuning(freeze_vision=False, freeze_language=True)
        super().__init__(
            vlm,
            init_from,
            vision_from,
            prompt,
            Tasks(prompt, None, 0.0, answers),
            vision_alone if tuning is None else as_settings(Tuning, tuning),
            as_settings(Schedule, schedule),
            as_settings(Scoring, scoring),
            max_completion_length,
            1.0,
            seed,
        )
        self.save_hyperparameters()
        self.plain_hparams()

    def score_texts(self, texts: list[str]) -> Tensor:
        """(N,) scores in [1, 5] of completions that the model is shown without an image."""
        network = self.network
        return score_texts(network.vlm, network.engine, texts, network.asked, network.scoring, self.limit)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores and texts of a test batch, and the scores of the texts alone."""
        out = self.predict_batch(batch)
        texts = out.texts or []
        alone = self.score_texts(texts).tolist()
        self.evaluation.add(dataloader_idx, batch, out, {"text": texts, "text_score": alone})

    def test_metrics(self, frame: pd.DataFrame) -> dict[str, float]:
        """Adds ``srcc_from_text`` and the share ``failed_from_text``; ``text_score`` is a column of the table."""
        return {**super().test_metrics(frame), **text_score_metrics(frame)}


def text_score_metrics(frame: pd.DataFrame) -> dict[str, float]:
    """How well the texts' scores agree with people.

    Args:
        frame: columns mos and text_score; NaN where unknown or unparseable.

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
    vlm: VLM, engine: Engine, texts: list[str], asked: Prompt, scoring: Scoring, limit: int
) -> Tensor:
    """Scores that a model gives descriptions when it sees no image.

    The question is asked without an image, the description is put into the model's mouth, and it goes on to
    its score. RACT's claim that reasoning carries the score stands or falls with this number; Kyoto's
    arXiv 2601.02441 finds that it drops a lot in models that were not trained for it.

    Args:
        vlm: the model.
        engine: what continues prompts.
        texts: N completions with their ``<think>…</think>``.
        asked: a prompt of the score task.
        scoring: ``expectation`` as there; ``greedy`` and ``samples`` read the likeliest score.
        limit: of length in tokens.

    Returns:
        (N,) in [1, 5], NaN for a completion without a description, or a score that cannot be parsed.
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
        found[rows] = parsed_scores(done)
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
    return Prompts(tensors, tuple(texts), (torch.empty(3, 0, 0, dtype=torch.uint8),) * len(texts))
