"""Is the score in the text? Scoring from texts against scoring from images, swapped and switched off.

The literature disagrees: "Reasoning as representation" (ICLR 2026) finds that the score is read from the
text, and arXiv 2601.02441 that models score far worse from their texts than from images. So it is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from rali_zoo.analysis import interventions
from rali_zoo.analysis.common import decodable, written
from rali_zoo.analysis.intervals import Agreement, Difference, Interval, agreement, difference

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from rali_zoo.analysis.common import Settings
    from rali_zoo.models.vlm import VLMNetwork

Scores = dict[str, "NDArray[np.float64]"]
OWN = "image and text (its own answer)"
NO_IMAGE = "text, no image in the prompt"
GREY = "text, a grey image"
OTHER = "text, another image"
BRIEF = "text less its last sentence, no image"
TEXT_RIDGE = "text, linear probe"
BRIEF_RIDGE = "text less its last sentence, linear probe"
IMAGE_RIDGE = "image, linear probe"
EMPTY = "image, empty reasoning"


class Texts(TypedDict, total=False):
    """Of a data set: each way of scoring, how pairs of them differ, and what one analysis or another adds."""

    scores: dict[str, Agreement]
    differences: dict[str, Difference]
    undecodable: int
    conflict: dict[str, Interval]
    distinct: dict[str, int]


def text_vs_image(
    module: VLMNetwork, frames: Mapping[str, pd.DataFrame], settings: Settings
) -> dict[str, Texts]:
    """Scores from the text alone against scores from the image.

    Ways of scoring, each by data set: the reasoner's own answer; its answer to its own text without the
    image, with a grey one, and with another image of the data set in its place; and ridge regressions,
    cross-validated by content, on the words and on the vectors that stand for the image before the language
    model. Many texts end by saying how good the image is. Then they give the score whatever stands before,
    so they are tried without their last sentence too.

    Args:
        module: the reasoner.
        frames: images by data set.
        settings: how.

    Returns:
        By data set ``undecodable`` images, ``scores`` (by way, of
        :func:`~rali_zoo.analysis.intervals.agreement`), ``differences`` (text minus image) and
        ``conflict``: with another image's pixels, the SRCC of the answer with the MOS of the ``text``'s
        image and of the ``image`` shown, and of the two MOS with each other (``chance``).
    """
    from rali_zoo.analysis.domains import image_space
    from rali_zoo.rl.monitor import text_only_srcc

    results: dict[str, Texts] = {}
    for ref, frame in frames.items():
        answers = written(module, ref, frame, settings)
        good = decodable(answers, ref)
        mos, content = good["mos"].to_numpy(float), good["content"].astype(str).tolist()
        paths, texts = good["path"].tolist(), good["text"].tolist()
        other = another(len(good), settings.seed)
        reasoning = interventions.thoughts(texts)
        brief = [f"<think>{interventions.less_last_sentence(thought)}</think>" for thought in reasoning]
        vectors = image_space(module, {ref: good}, settings.batch_size)[ref]
        scores: Scores = {
            OWN: interventions.own(module, paths, texts, good["score"].tolist(), settings),
            NO_IMAGE: interventions.without_image(module, texts, settings),
            GREY: interventions.with_image(module, paths, reasoning, settings, "grey"),
            OTHER: interventions.with_image(module, [paths[i] for i in other], reasoning, settings),
            BRIEF: interventions.without_image(module, brief, settings),
            TEXT_RIDGE: text_only_srcc(texts, mos.tolist(), content, seed=settings.seed).predictions,
            BRIEF_RIDGE: text_only_srcc(brief, mos.tolist(), content, seed=settings.seed).predictions,
            IMAGE_RIDGE: interventions.linear_probe(vectors, mos, content, seed=settings.seed),
        }
        pairs = [
            *((way, OWN) for way in (NO_IMAGE, GREY, OTHER, BRIEF, TEXT_RIDGE)),
            (TEXT_RIDGE, IMAGE_RIDGE),
            (BRIEF_RIDGE, IMAGE_RIDGE),
        ]
        results[ref] = {
            **_compared(scores, pairs, mos, content, settings),
            "undecodable": len(answers) - len(good),
            "conflict": _conflict(scores[OTHER], mos, other, content, settings),
        }
    return results


def another(n: int, seed: int) -> list[int]:
    """For each of n images the position of another one; each is used once."""
    order = np.random.default_rng(seed).permutation(n)
    other = np.empty(n, dtype=int)
    other[order] = np.roll(order, 1)
    return [int(i) for i in other]


def _conflict(
    score: NDArray[np.float64],
    mos: NDArray[np.float64],
    other: Sequence[int],
    content: list[str],
    settings: Settings,
) -> dict[str, Interval]:
    """Which of two conflicting sources an answer follows."""
    n, seed, shown = settings.resamples, settings.seed, mos[list(other)]
    return {
        "text": agreement(score, mos, content, n, seed)["srcc"],
        "image": agreement(score, shown, content, n, seed)["srcc"],
        "chance": agreement(mos, shown, content, n, seed)["srcc"],
    }


def _compared(
    scores: Scores,
    pairs: Sequence[tuple[str, str]],
    mos: NDArray[np.float64],
    content: list[str],
    settings: Settings,
) -> Texts:
    n, seed = settings.resamples, settings.seed
    return {
        "scores": {name: agreement(x, mos, content, n, seed) for name, x in scores.items()},
        "differences": {
            f"{a} - {b}": difference(scores[a], scores[b], mos, content, n, seed) for a, b in pairs
        },
    }


def no_reasoning(
    module: VLMNetwork, frames: Mapping[str, pd.DataFrame], settings: Settings
) -> dict[str, Texts]:
    """Answers with the reasoning switched off (an empty one is put into the model's mouth), against with.

    Args:
        module: the reasoner.
        frames: images by data set.
        settings: how.

    Returns:
        By data set ``undecodable``, ``scores`` and ``differences`` as in :func:`text_vs_image`, and
        ``distinct``: how many different scores each way gave.
    """
    results: dict[str, Texts] = {}
    for ref, frame in frames.items():
        answers = written(module, ref, frame, settings)
        good = decodable(answers, ref)
        mos, content = good["mos"].to_numpy(float), good["content"].astype(str).tolist()
        paths, texts = good["path"].tolist(), good["text"].tolist()
        scores: Scores = {
            OWN: interventions.own(module, paths, texts, good["score"].tolist(), settings),
            EMPTY: interventions.with_image(module, paths, [""] * len(good), settings),
        }
        results[ref] = {
            **_compared(scores, [(EMPTY, OWN)], mos, content, settings),
            "undecodable": len(answers) - len(good),
            "distinct": {name: len(set(x[np.isfinite(x)].tolist())) for name, x in scores.items()},
        }
    return results


def swap(
    modules: Mapping[str, VLMNetwork], frames: Mapping[str, pd.DataFrame], settings: Settings
) -> dict[str, dict[str, Texts]]:
    """Texts read by somebody else: another reasoner's language model, or a linear probe of another data set.

    Every reasoner writes about every data set. Each text is scored without the image by its writer and by
    each other reasoner, and by ridge regressions on words that were trained on this writer's texts of this
    data set (cross-validated) and of each other one. Beside them stand the same on the vectors of images.

    Args:
        modules: reasoner by name.
        frames: images by data set.
        settings: how.

    Returns:
        By data set and writer ``undecodable``, ``scores`` and ``differences`` (swapped minus own reader, and
        text minus image where both are swapped) as in :func:`text_vs_image`.
    """
    from rali_zoo.analysis.domains import image_space

    results: dict[str, dict[str, Texts]] = {ref: {} for ref in frames}
    for writer, module in modules.items():
        answers = {ref: written(module, ref, frame, settings) for ref, frame in frames.items()}
        good = {ref: decodable(rows, ref) for ref, rows in answers.items()}
        vectors = image_space(module, good, settings.batch_size)
        others = {name: other for name, other in modules.items() if name != writer}
        for ref, rows in good.items():
            mos, content = rows["mos"].to_numpy(float), rows["content"].astype(str).tolist()
            own = f"read by {writer}"
            texts = rows["text"].tolist()
            scores: Scores = {own: interventions.without_image(module, texts, settings)}
            for reader, other in others.items():
                scores[f"read by {reader}"] = interventions.without_image(other, texts, settings)
            pairs = [(name, own) for name in scores if name != own]
            more, compared = _probes(ref, good, vectors, settings)
            results[ref][writer] = {
                **_compared(scores | more, [*pairs, *compared], mos, content, settings),
                "undecodable": len(answers[ref]) - len(rows),
            }
    return results


def _probes(
    ref: str,
    good: Mapping[str, pd.DataFrame],
    vectors: Mapping[str, NDArray[np.float64]],
    settings: Settings,
) -> tuple[Scores, list[tuple[str, str]]]:
    """Scores of a data set by ridges trained on each one's texts and images, and what to compare."""
    from rali_zoo.rl.monitor import text_only_srcc

    mos = {name: rows["mos"].to_numpy(float) for name, rows in good.items()}
    plain = {name: interventions.words(rows["text"].tolist()) for name, rows in good.items()}
    content = good[ref]["content"].astype(str).tolist()
    own = text_only_srcc(
        good[ref]["text"].tolist(), mos[ref].tolist(), content, seed=settings.seed
    ).predictions
    scores: Scores = {
        f"text, linear probe of {ref}": own,
        f"image, linear probe of {ref}": interventions.linear_probe(
            vectors[ref], mos[ref], content, seed=settings.seed
        ),
    }
    pairs = []
    for source in good:
        if source == ref:
            continue
        text, image = f"text, linear probe of {source}", f"image, linear probe of {source}"
        scores[text] = interventions.text_transfer(plain[source], mos[source], plain[ref])
        scores[image] = interventions.transfer(vectors[source], mos[source], vectors[ref])
        pairs += [
            (text, f"text, linear probe of {ref}"),
            (image, f"image, linear probe of {ref}"),
            (text, image),
        ]
    return scores, pairs
