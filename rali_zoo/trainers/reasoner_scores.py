"""Scores read from what a reasoner writes, and their evaluation: an unreadable answer is an error row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, distributed

from rali_zoo.metrics.correlation import plcc, srcc
from rali_zoo.rl.monitor import text_only_srcc
from rali_zoo.trainers.base import Prediction
from rali_zoo.trainers.evaluation import Evaluation
from rali_zoo.trainers.reasoner_options import Scoring
from rali_zoo.types import Batch
from rali_zoo.vlm.expectation import expected_scores
from rali_zoo.vlm.generation import Completions, RolloutEngine, evaluating
from rali_zoo.vlm.model import VLM
from rali_zoo.vlm.prompts import Prompt

if TYPE_CHECKING:
    import pandas as pd

    from rali_zoo.trainers.base import IQAModule

UNREADABLE = "no score can be read from the answer"
#: A correlation over the images with readable answers says little where many are missing; with fewer than
#: this share of them it is not defined, so that no checkpoint is chosen for the images it left out.
LEAST_READABLE = 0.9
_TEXT_FOLDS = 5


class Scored(NamedTuple):
    """Scores of B images with the texts that they were read from."""

    prediction: Prediction
    texts: list[str]  #: B; the first one where several were drawn


def score_images(
    vlm: VLM,
    engine: RolloutEngine,
    image: Tensor,
    asked: Prompt,
    scoring: Scoring,
    limit: int,
    temperature: float,
    seed: int = 0,
) -> Scored:
    """Ask for the quality of images.

    Args:
        vlm: the model.
        engine: what continues prompts.
        image: (B, 3, H, W) in [0, 1].
        asked: a prompt of the score task.
        scoring: how a score is made.
        limit: of length in tokens.
        temperature: of ``samples``.
        seed: of ``samples``.

    Returns:
        Scores in [1, 5], NaN where no answer can be read; of several samples the readable ones count.
    """
    prompts = vlm.ask(image, [asked] * len(image))
    if scoring.kind == "samples":
        drawn = engine.generate(prompts, scoring.samples, limit, temperature, seed)
        values = _read(drawn).view(-1, scoring.samples)
        count = (~values.isnan()).sum(dim=1)
        mean = values.nanmean(dim=1)
        squares = ((values - mean[:, None]) ** 2).nansum(dim=1)
        std = torch.where(count > 1, squares / (count - 1).clamp_min(1), float("nan")).sqrt()
        return Scored(Prediction(mean, std), drawn.texts[:: scoring.samples])
    greedy = engine.generate(prompts, 1, limit, 0.0, seed)
    if scoring.kind == "greedy":
        return Scored(Prediction(_read(greedy)), greedy.texts)
    with evaluating(vlm.model):
        return Scored(Prediction(*expected_scores(vlm, greedy)), greedy.texts)


def _read(completions: Completions) -> Tensor:
    return torch.tensor([float("nan") if p.score is None else p.score for p in completions.parsed])


class ReasonerEvaluation(Evaluation):
    """:class:`Evaluation` that knows unreadable answers, and looks at the texts.

    Args:
        module: the module whose trainer and logger are used.
    """

    def __init__(self, module: IQAModule) -> None:
        super().__init__(module)
        self.texts: dict[int, dict[str, str]] = {}

    def clear(self) -> None:
        """Forget the rows and texts."""
        super().clear()
        self.texts = {}

    def add_texts(self, loader: int, batch: Batch, texts: list[str]) -> None:
        """Keep what was written of a batch."""
        self.texts.setdefault(loader, {}).update(zip(batch["id"], texts, strict=True))

    def _frame(self, loader: int) -> pd.DataFrame:
        """As the base class's, with a reason for each image without a score, and the column ``text``."""
        frame, texts = super()._frame(loader), self.texts.get(loader, {})
        if distributed.is_available() and distributed.is_initialized():
            everyone: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(everyone, texts)
            texts = {name: text for part in everyone for name, text in part.items()}
        frame.loc[frame["score"].isna(), "error"] = UNREADABLE
        frame["text"] = frame["id"].map(texts)
        return frame

    def log_validation(self, refs: list[str]) -> None:
        """Log of each reference SRCC and PLCC, failed and distinct texts as shares, and SRCC of texts alone.

        The means are ``val/srcc``, ``val/plcc``, ``val/failed``, ``val/distinct_texts`` and
        ``val/text_only_srcc``. A correlation is NaN where fewer than :data:`LEAST_READABLE` of the answers
        can be read.
        """
        rows = [text_metrics(self._frame(loader)) for loader in range(len(refs))]
        for ref, row in zip(refs, rows, strict=True):
            for name, value in row.items():
                self._log(f"val/{ref}/{name}", value)
        for name in rows[0]:
            mean = sum(row[name] for row in rows) / len(rows)
            shown = name in ("srcc", "failed")
            self._module[0].log(f"val/{name}", mean, prog_bar=shown, sync_dist=True)


def text_metrics(frame: pd.DataFrame) -> dict[str, float]:
    """What validation looks at.

    Args:
        frame: columns mos, score, error and text.

    Returns:
        ``srcc`` and ``plcc`` of the readable answers, shares ``failed`` and ``distinct_texts`` in [0, 1],
        and ``text_only_srcc`` (see :func:`rali_zoo.rl.monitor.text_only_srcc`); NaN where not defined.
    """
    nan = float("nan")
    readable = frame[frame["error"] == ""]
    known = readable[readable["mos"].notna()]
    enough = len(known) > 1 and len(readable) >= LEAST_READABLE * len(frame)
    pred, mos = known["score"].to_numpy(float), known["mos"].to_numpy(float)
    rated = frame[frame["mos"].notna()]
    alone = None
    if len(rated) >= _TEXT_FOLDS:
        alone = text_only_srcc(rated["text"].tolist(), rated["mos"].tolist(), folds=_TEXT_FOLDS)
    return {
        "srcc": srcc(pred, mos) if enough else nan,
        "plcc": plcc(pred, mos) if enough else nan,
        "failed": 1 - len(readable) / max(len(frame), 1),
        "distinct_texts": nan if alone is None else alone.distinct / alone.n,
        "text_only_srcc": nan if alone is None else alone.srcc,
    }
