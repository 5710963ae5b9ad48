"""Where a reasoner looks when it gives its score, and how many tokens an image and its text take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from rali_zoo.analysis.common import batches, decodable, written
from rali_zoo.analysis.intervals import Interval, mean_interval
from rali_zoo.errors import ConfigError
from rali_zoo.vlm.generation import evaluating
from rali_zoo.vlm.parsing import TAG, parse

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from rali_zoo.analysis.common import Settings
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.vlm.model import VLM, Prompts

#: What a token may belong to: the image, the question with its template, the reasoning, the answer.
PARTS = ("image", "question", "text", "answer")
_IMAGE_IDS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


#: Share of attention by part, mean over images.
Shares = dict[str, Interval]


class Attention(TypedDict):
    """Of a data set: how many images, and where attention is at the score and in the text, by layer."""

    n: int
    left_out: int
    even: Shares
    score: dict[str, Shares]
    text: dict[str, Shares]


class Compression(TypedDict):
    """Of a data set: how many images, and how many tokens images and texts take."""

    n: int
    left_out: int
    visual: Interval
    text: Interval
    ratio: Interval
    tokens: list[list[int]]


@dataclass(frozen=True)
class Places:
    """Where things stand in a completion of C tokens.

    Attributes:
        text: tokens of the reasoning with its tags, [0, text).
        score: position of the token that holds the score's first digit; its logits come from the one before.
    """

    text: int
    score: int


def places(vlm: VLM, ids: Sequence[int], text: str) -> Places | None:
    """Positions in a completion; ``None`` where it has no score or no closed reasoning.

    Args:
        vlm: whose tokenizer.
        ids: tokens of the completion.
        text: the completion, decoded.
    """
    score = parse(text).score
    tags = list(TAG.finditer(text))
    closed = [m.end() for m in tags if m[1] and m[2].lower() == "think"]
    if score is None or not closed:
        return None
    opened = [m.end() for m in tags if not m[1] and m[2].lower() == "answer" and m.start() >= closed[-1]]
    numbers = _NUMBER.finditer(text, opened[0] if opened else closed[-1])
    start = next((m.start() for m in numbers if float(m[0]) == score), None)
    if start is None:
        return None
    decode: Any = vlm.tokenizer.decode
    lengths = [
        len(decode(list(ids[:n]), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for n in range(len(ids) + 1)
    ]
    # the token that brings the text past a character is the one that holds it
    before = [sum(length <= end for length in lengths) - 1 for end in (closed[-1], start)]
    return Places(*before) if before[1] < len(ids) else None


def image_tokens(vlm: VLM, ids: Tensor) -> Tensor:
    """Which of (…) token ids stand for images; raises :class:`ConfigError` where the family names none."""
    named = {getattr(vlm.model.config, name, None) for name in _IMAGE_IDS} - {None}
    if not named:
        raise ConfigError(f"'{vlm.uri}' names no token that stands for images ({' or '.join(_IMAGE_IDS)})")
    return torch.isin(ids, torch.tensor(sorted(named), device=ids.device))


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention computed so that its weights can be seen; afterwards as it was."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before or "sdpa")


@torch.no_grad()
def shares(vlm: VLM, prompts: Prompts, ids: Tensor, mask: Tensor, found: Sequence[Places]) -> Tensor:
    """Attention by layer and part of the input, mean over heads.

    Args:
        vlm: the model.
        prompts: N questions with images.
        ids: (N, C) completions, padded on the right.
        mask: (N, C).
        found: of each completion.

    Returns:
        (N, 2, L, 4), each row summing to 1 over :data:`PARTS`: at the position that emits the score's first
        digit, and as the mean over those that emit the reasoning. On the CPU.

    Raises:
        ConfigError: a family that does not give its attention.
    """
    inputs = prompts.followed_by(ids, mask)
    with evaluating(vlm.model), eager(vlm.model):
        output = vlm.model(**inputs, output_attentions=True, use_cache=False)
    length = inputs["input_ids"].shape[1]
    layers = [a for a in output.attentions or () if a is not None and a.shape[-2:] == (length, length)]
    if not layers:
        raise ConfigError(
            f"'{vlm.uri}' gives no attention weights with output_attentions; try another family"
        )
    belongs = parts(vlm, prompts, inputs["attention_mask"], found)
    attended = torch.stack([a.float().mean(dim=1) for a in layers], dim=1)  # (N, L, T, T)
    by_part = torch.einsum("nlqk,npk->nlqp", attended, belongs)
    first = prompts.length - 1
    rows = []
    for row, place in enumerate(found):
        at_score = by_part[row, :, first + place.score]
        at_text = by_part[row, :, first : first + place.text].mean(dim=1)
        rows.append(torch.stack([at_score, at_text]))
    return torch.stack(rows).cpu()


def parts(vlm: VLM, prompts: Prompts, mask: Tensor, found: Sequence[Places]) -> Tensor:
    """(N, 4, T) which token of prompt and completion belongs to which of :data:`PARTS`; 0 for padding.

    Args:
        vlm: says which tokens stand for the image.
        prompts: N questions.
        mask: (N, T) 1 for tokens of prompt and completion, 0 for padding.
        found: where reasoning and answer begin in each completion.
    """
    start, total = prompts.length, mask.shape[1]
    image = torch.zeros_like(mask, dtype=torch.bool)
    image[:, :start] = image_tokens(vlm, prompts.inputs["input_ids"])
    position = torch.arange(total, device=mask.device)
    ends = torch.tensor([start + p.text for p in found], device=mask.device)[:, None]
    question = (position < start) & ~image
    text = (position >= start) & (position < ends)
    answer = (position >= ends) & ~image
    stacked = torch.stack([image, question, text, answer], dim=1)
    return (stacked & mask.bool()[:, None]).float()


def attention(
    module: VLMNetwork, frames: Mapping[str, pd.DataFrame], settings: Settings
) -> dict[str, Attention]:
    """Share of attention on image, question, reasoning and answer, by layer, mean over heads and images.

    As figure 3 of "Reasoning as representation", with two things beside it: the shares that attention would
    have if it were spread evenly over all tokens, and those while the reasoning is being written. Attention
    is where a layer reads from, not what its output depends on; for that see
    :func:`rali_zoo.analysis.texts.text_vs_image`.

    Args:
        module: the reasoner.
        frames: images by data set.
        settings: how.

    Returns:
        By data set ``n``, ``left_out`` (undecodable images, unparseable answers), ``even`` (part to share), and for
        ``score`` and ``text`` (where attention is looked at) by layer the share of each part, plus ``all``,
        the mean over layers; each ``value, low, high``.
    """
    results: dict[str, Attention] = {}
    for ref, frame in frames.items():
        answers = written(module, ref, frame, settings)
        good = decodable(answers, ref)
        found, even, rows = _look(module, good, settings)
        content = good["content"].astype(str).to_numpy()[rows].tolist()
        if not rows:
            raise ConfigError(f"{ref}: not one answer of {module.vlm.uri} has a reasoning and a score")

        def means(values: NDArray[np.float64], content: list[str] = content) -> Shares:
            return {
                part: mean_interval(values[:, i], content, settings.resamples, settings.seed)
                for i, part in enumerate(PARTS)
            }

        def by_layer(looked: NDArray[np.float64]) -> dict[str, Shares]:
            layers = {str(layer): means(looked[:, layer]) for layer in range(looked.shape[1])}
            return {**layers, "all": means(looked.mean(axis=1))}

        results[ref] = {
            "n": len(rows),
            "left_out": len(answers) - len(rows),
            "even": means(even),
            "score": by_layer(found[:, 0]),
            "text": by_layer(found[:, 1]),
        }
    return results


def _look(
    module: VLMNetwork, good: pd.DataFrame, settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]]:
    """(n, 2, L, 4) shares, (n, 4) even shares at the score, and the rows of ``good`` that they are of."""
    vlm = module.vlm
    where = [places(vlm, ids, text) for ids, text in zip(good["ids"], good["text"], strict=True)]
    rows = [row for row, place in enumerate(where) if place is not None]
    paths = good["path"].tolist()
    found, even = [], []
    kept: list[int] = []
    for some, images in batches(module, [paths[row] for row in rows], settings.batch_size, {}):
        chosen = [rows[i] for i in some]
        ids = [torch.tensor(list(good["ids"][row]), dtype=torch.int64) for row in chosen]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=vlm.pad)
        mask = torch.arange(padded.shape[1]) < torch.tensor([[len(i)] for i in ids])
        padded, mask = padded.to(module.device), mask.long().to(module.device)
        prompts = vlm.ask(images, [module.asked] * len(images))
        known = [p for p in (where[row] for row in chosen) if p is not None]
        found.append(shares(vlm, prompts, padded, mask, known).double().numpy())
        full = prompts.followed_by(padded, mask)["attention_mask"]
        seen = parts(vlm, prompts, full, known)
        for row, place in enumerate(known):
            counts = seen[row, :, : prompts.length + place.score].sum(dim=1)
            even.append((counts / counts.sum()).double().cpu().numpy())
        kept += chosen
    if not kept:
        return np.zeros((0, 2, 0, 4)), np.zeros((0, 4)), []
    return np.concatenate(found), np.stack(even), kept


def compression(
    module: VLMNetwork, frames: Mapping[str, pd.DataFrame], settings: Settings
) -> dict[str, Compression]:
    """Visual tokens that an image takes, against tokens of the reasoning written about it.

    Args:
        module: the reasoner.
        frames: images by data set.
        settings: how.

    Returns:
        By data set ``n``, ``left_out`` (undecodable images, or texts without a closed reasoning),
        ``visual``, ``text`` (tokens) and ``ratio`` (visual to text, by image), each ``value, low, high`` of
        the mean; ``tokens``: the pairs (visual, text) with how many images have them.
    """
    results: dict[str, Compression] = {}
    for ref, frame in frames.items():
        answers = written(module, ref, frame, settings)
        good = decodable(answers, ref)
        visual = np.zeros(len(good))
        for some, images in batches(module, good["path"].tolist(), settings.batch_size, {}):
            prompts = module.vlm.ask(images, [module.asked] * len(images))
            standing = image_tokens(module.vlm, prompts.inputs["input_ids"])
            visual[some] = (standing & prompts.inputs["attention_mask"].bool()).sum(dim=1).cpu().numpy()
        texts = [f"<think>{t}</think>" if (t := parse(text).think) else "" for text in good["text"]]
        tokenize: Any = module.vlm.tokenizer
        text = np.array([len(tokenize(t, add_special_tokens=False)["input_ids"]) if t else 0 for t in texts])
        there = np.flatnonzero((text > 0) & (visual > 0))
        if not there.size:
            raise ConfigError(f"{ref}: not one answer of {module.vlm.uri} has a reasoning")
        content = good["content"].astype(str).to_numpy()[there].tolist()
        pairs, counts = np.unique(np.stack([visual[there], text[there]], 1), axis=0, return_counts=True)

        def mean(values: NDArray[np.float64], content: list[str] = content) -> Interval:
            return mean_interval(values, content, settings.resamples, settings.seed)

        results[ref] = {
            "n": int(there.size),
            "left_out": len(answers) - int(there.size),
            "visual": mean(visual[there]),
            "text": mean(text[there]),
            "ratio": mean(visual[there] / text[there]),
            "tokens": [[int(v), int(t), int(c)] for (v, t), c in zip(pairs, counts, strict=True)],
        }
    return results
