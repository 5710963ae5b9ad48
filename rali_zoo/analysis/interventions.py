"""Answers of a reasoner whose reasoning, or whose image, is not its own.

Everything is asked of the model itself: the reasoning is put into its mouth and it goes on to its answer.
What stands before the answer changes (its own text, none, another image's), and what it is shown (its
image, a grey one, another, none at all).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from rali_zoo.models.vlm import Scoring
from rali_zoo.rl.rewards import Rollouts, plain_thought
from rali_zoo.trainers.ract import score_texts
from rali_zoo.vlm.expectation import expected_scores
from rali_zoo.vlm.model import Prompts
from rali_zoo.vlm.parsing import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rali_zoo.analysis.common import ScoreKind, Settings
    from rali_zoo.models.vlm import VLMNetwork

Shown = Literal["image", "grey"]


def thoughts(texts: Sequence[str]) -> list[str]:
    """The reasonings of completions, without their tags; empty where there is none."""
    return [parse(text).think for text in texts]


def less_last_sentence(text: str) -> str:
    """A text up to its last sentence; empty if there is but one."""
    return " ".join(re.split(r"(?<=[.!?])\s+", text.strip())[:-1])


def words(texts: Sequence[str]) -> list[str]:
    """The reasonings of completions without their numbers, which a linear probe could take for scores."""
    return [plain_thought(p) for p in Rollouts(list(texts)).parsed]


@torch.no_grad()
def with_image(
    module: VLMNetwork,
    paths: Sequence[str],
    reasoning: Sequence[str],
    settings: Settings,
    shown: Shown = "image",
) -> NDArray[np.float64]:
    """Scores that a reasoner gives after a reasoning that it is handed.

    Args:
        module: the reasoner.
        paths: N images.
        reasoning: N texts that stand between its think tags; an empty one switches the reasoning off.
        settings: batch size and scoring.
        shown: the images, or grey ones of their sizes in their place: the prompt then has as many visual
            tokens, and they hold nothing.

    Returns:
        (N,) in [1, 5]; NaN for an unparseable answer or an undecodable image.
    """
    from rali_zoo.analysis.common import batches

    found = np.full(len(paths), np.nan)
    for places, images in batches(module, paths, settings.batch_size, {}):
        if shown == "grey":
            images = torch.full_like(images, 0.5)
        begun = [f"<think>{reasoning[place]}</think>" for place in places]
        found[places] = _go_on(module, images, begun, settings.scoring)
    return found


def _go_on(
    module: VLMNetwork, images: torch.Tensor, begun: list[str], kind: ScoreKind
) -> NDArray[np.float64]:
    vlm = module.vlm
    asked = vlm.ask(images, [module.asked] * len(images))
    texts = tuple(question + answer for question, answer in zip(asked.texts, begun, strict=True))
    process: Any = vlm.processor
    inputs = process(text=list(texts), images=list(asked.images), padding=True, return_tensors="pt")
    tensors = {k: v.to(vlm.model.device) for k, v in inputs.items() if isinstance(v, torch.Tensor)}
    prompts = Prompts(tensors, texts, asked.images)
    done = module.engine.generate(prompts, 1, module.limit, 0.0, 0)
    if kind == "expectation":
        return expected_scores(vlm, done)[0].double().numpy()
    return np.array([np.nan if p.score is None else p.score for p in done.parsed])


def without_image(module: VLMNetwork, texts: Sequence[str], settings: Settings) -> NDArray[np.float64]:
    """Scores that a reasoner gives descriptions when its prompt holds no image at all.

    Args:
        module: the reasoner; need not be the one that wrote the texts.
        texts: N completions with their ``<think>…</think>``.
        settings: batch size and scoring.

    Returns:
        (N,) in [1, 5]; NaN for a completion without a reasoning, or for an unparseable answer.
    """
    vlm, limit, size = module.vlm, module.limit, settings.batch_size
    scoring = Scoring(kind=settings.scoring)
    parts = [
        score_texts(vlm, module.engine, list(texts[start : start + size]), module.asked, scoring, limit)
        for start in range(0, len(texts), size)
    ]
    return torch.cat(parts).double().numpy()


def own(module: VLMNetwork, paths: Sequence[str], texts: Sequence[str], scores: Sequence[float],
        settings: Settings) -> NDArray[np.float64]:  # fmt: skip
    """Scores of what the reasoner wrote itself, under ``scoring``.

    Args:
        module: the reasoner.
        paths: N images.
        texts: N completions that it wrote of them.
        scores: (N,) that were read from them.
        settings: batch size and scoring.
    """
    if settings.scoring == "greedy":
        return np.asarray(scores, float)
    return with_image(module, paths, thoughts(texts), settings)


# ---- linear probes ----


def linear_probe(
    x: NDArray[np.float64], mos: NDArray[np.float64], content: Sequence[str], folds: int = 5, seed: int = 0
) -> NDArray[np.float64]:
    """Out-of-fold predictions of a ridge regression on vectors; the counterpart of a text's.

    As :func:`rali_zoo.rl.monitor.text_only_srcc` does for words: contents stay in one fold, and predictions
    are differences from the mean of the training folds.

    Args:
        x: (n, d) vectors.
        mos: (n,).
        content: n names.
        folds: parts of the cross-validation.
        seed: of the folds.
    """
    from sklearn.model_selection import GroupKFold

    found = np.zeros(len(x))
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(x, groups=list(content)):
        mean = mos[train].mean()
        found[test] = transfer(x[train], mos[train] - mean, x[test])
    return found


def transfer(
    known: NDArray[np.float64], mos: NDArray[np.float64], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Predictions for vectors by a ridge regression on others.

    Args:
        known: (n, d) vectors to learn from; dimensions are standardised by them.
        mos: (n,) of those.
        asked: (m, d) vectors to predict for.

    Returns:
        (m,).
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-1, 4, 6))).fit(known, mos)
    return ridge.predict(asked).round(9) + 0.0


def text_transfer(
    known: Sequence[str], mos: NDArray[np.float64], asked: Sequence[str]
) -> NDArray[np.float64]:
    """Predictions for texts by a ridge on the words and word pairs of other texts.

    Args:
        known: texts without numbers to learn from.
        mos: of those.
        asked: texts without numbers to predict for.

    Returns:
        (len(asked),); NaN where the known texts have no word at all.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV

    word = r"[^\W\d_]+"
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=word)
    try:
        x = tfidf.fit_transform(known)
    except ValueError:  # an empty vocabulary
        return np.full(len(asked), np.nan)
    ridge = RidgeCV(alphas=np.logspace(-2, 3, 6)).fit(x, mos)
    return ridge.predict(tfidf.transform(asked)).round(9) + 0.0
