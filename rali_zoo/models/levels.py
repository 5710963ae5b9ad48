"""Scores of vision-language models that rate with the words of a scale: ``levels:hf:ORG/MODEL``.

Q-Align (ICML 2024) and DeQA-Score (CVPR 2025) train a model to say "The quality of the image is good.", and
read a score between the levels from the probabilities of the five words. That needs one forward pass and no
head of its own, so any model of transformers for images and text can be asked, also one that was never
trained for it.
"""

from __future__ import annotations

import os
from typing import cast, get_args

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError, near_miss
from rali_zoo.models.base import IQANetwork, Prediction
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.models.vlm import one_view
from rali_zoo.paths import text_sha256
from rali_zoo.types import Batch, Preprocess
from rali_zoo.uri import Uri
from rali_zoo.vlm.generation import completion_logits, evaluating
from rali_zoo.vlm.model import VLM, Images, Precision, Prompts, load_vlm
from rali_zoo.vlm.prompts import Prompt

#: What Q-Align and DeQA-Score ask, the answer that their models are trained to give, and its words.
QUESTION = "How would you rate the quality of this image?"
ANSWER = "The quality of the image is"
WORDS = "excellent,good,fair,poor,bad"
OPTIONS = ("question", "answer", "words", "precision")


class LevelRater(IQANetwork):
    """The expected level of the answer that a vision-language model begins.

    The probability of a level is that of all tokens of its word behind the answer's beginning, divided by the
    sum over the levels; where each word is one token, as in Q-Align, that is the softmax of their logits. The
    first word counts 5, the last 1, those between are equally spaced. The std of a score is that of this
    distribution.

    Args:
        vlm: ``hf:org/repo[@rev]`` or ``hf:local-dir:FOLDER``; see :func:`rali_zoo.vlm.model.load_vlm`.
        question: what is asked behind the image.
        answer: how the answer begins.
        words: the levels from best to worst, joined by commas; at least two.
        precision: of the weights, ``float32`` or ``bfloat16``.

    Raises:
        ConfigError: fewer than two words, one twice, one that begins another in tokens, or another precision.
        CheckpointError: files that are missing or cannot be read without running code of their authors.
    """

    def __init__(
        self,
        vlm: str,
        question: str = QUESTION,
        answer: str = ANSWER,
        words: str = WORDS,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if precision not in get_args(Precision):
            raise ConfigError(f"precision={precision!r}. {near_miss(precision, get_args(Precision))}")
        self.asked, self.answer = Prompt("score", "", question), answer.strip()
        self.words = [word.strip() for word in words.split(",")]
        if len(self.words) < 2 or not all(self.words) or len(set(self.words)) < len(self.words):
            raise ConfigError(
                f"words={words!r}: give at least two different words from best to worst, as {WORDS!r}"
            )
        self.vlm: VLM = load_vlm(vlm, precision=precision)
        self.policy: torch.nn.Module = self.vlm.model
        self.prefix, self.tails = _tokens(self.vlm, self.answer, self.words)

    @property
    def preprocess(self) -> Preprocess:
        """Images keep their size; the processor of the model resizes them."""
        return self.vlm.preprocess

    @property
    def revision(self) -> str:
        """Hash of the weights, and of what is asked and answered."""
        text = "\n".join([self.asked.question, self.answer, *self.words])
        return f"{super().revision}-{text_sha256(text)[:6]}"

    def probabilities(self, image: Images) -> Tensor:
        """Images in [0, 1] to (B, L) probabilities of the levels, best first, on the CPU.

        Args:
            image: (B, 3, H, W), or B tensors (3, H, W) of different sizes.

        Raises:
            ConfigError: several views of an image.
        """
        prompts = self.vlm.ask(one_view(image), [self.asked] * len(image))
        each = self._one_token if all(len(tail) == 1 for tail in self.tails) else self._several_tokens
        with evaluating(self.policy):
            return each(prompts).softmax(dim=-1).cpu()

    def _one_token(self, prompts: Prompts) -> Tensor:
        """(B, L) logits, of one pass."""
        first = [tail[0] for tail in self.tails]
        ids = torch.tensor([[*self.prefix, first[0]]] * len(prompts), device=self.vlm.model.device)
        last = torch.tensor([len(self.prefix)])
        logits = completion_logits(self.policy, prompts, ids, torch.ones_like(ids), last)
        return logits[:, 0, first].float()

    def _several_tokens(self, prompts: Prompts) -> Tensor:
        """(B, L) log-probabilities of whole words, of a pass a level."""
        longest = max(map(len, self.tails))
        start, count = len(self.prefix), len(prompts)
        rows = [[*self.prefix, *tail, *[self.vlm.pad] * (longest - len(tail))] for tail in self.tails]
        ids = torch.tensor(rows * count, device=self.vlm.model.device)
        lengths = torch.tensor([[start + len(tail)] for tail in self.tails] * count, device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths).long()
        tail = torch.arange(start, ids.shape[1])
        logits = completion_logits(self.policy, prompts.repeat(len(self.tails)), ids, mask, tail)
        logps = logits.float().log_softmax(dim=-1).gather(2, ids[:, start:, None])[..., 0]
        return (logps * mask[:, start:]).sum(dim=1).view(count, -1)

    @torch.no_grad()
    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores in [1, 5] and the std over the levels; without gradients."""
        p = self.probabilities(batch["image"])
        values = torch.linspace(5, 1, len(self.words))
        mean = p @ values
        return Prediction(mean, (p @ values.square() - mean.square()).clamp_min(0).sqrt())


def _tokens(vlm: VLM, answer: str, words: list[str]) -> tuple[list[int], list[list[int]]]:
    """The tokens that all answers begin with, and those of each word behind them."""
    rows = [vlm.tokenizer(f"{answer} {word}", add_special_tokens=False)["input_ids"] for word in words]
    prefix = cast("list[int]", os.path.commonprefix(rows))
    tails = [row[len(prefix) :] for row in rows]
    for word, tail in zip(words, tails, strict=True):
        if not tail:
            raise ConfigError(
                f"words: to '{vlm.uri}' another of them begins as {word!r} does; take words that differ"
            )
    return prefix, tails


def load(uri: Uri, device: str | None = None) -> NetworkScorer:
    """Open ``levels:hf:ORG/MODEL``, with :data:`OPTIONS` behind a ``?``; see :func:`rali_zoo.load_model`."""
    options = uri.take(OPTIONS)
    precision = cast(Precision, options.pop("precision", "float32"))
    scorer = NetworkScorer(LevelRater(uri.id, precision=precision, **options), str(uri), device)
    scorer.training_sets = None  # as for any model whose authors do not say
    return scorer
