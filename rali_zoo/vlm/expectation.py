"""A score between the scores a model can write: the expectation over the digits of its answer.

The greedy answer has few distinct values and many ties. Its words are kept up to the score; then the first
digit is weighed by its probability, and the second one given each first. The third is left out: it moves the
score by less than a twentieth. So is the second one after a first that is next to impossible.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError
from rali_zoo.vlm.generation import Completions, completion_logits
from rali_zoo.vlm.model import VLM
from rali_zoo.vlm.parsing import SCORE_KEYS, parse

_KEY = re.compile(rf"(?:{'|'.join(SCORE_KEYS)})[\"']?\s*[:=]\s*[\"']?", re.IGNORECASE)
_ANSWER = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_NUMBER = re.compile(r"[1-5](?:\.[0-9]+)?")
# Means of what the digits left out may add: x.y0 to x.y9.
_REST = 0.045
# A first digit below this probability takes all tenths alike: each moves the mean by less than half a thousandth.
_RARE = 1e-3


def digit_tokens(vlm: VLM) -> tuple[list[int], int]:
    """Ids of "0" to "9" and of "."; raises :class:`ConfigError` where they are not single tokens."""
    ids = [vlm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in "0123456789."]
    if any(len(i) != 1 for i in ids):
        raise ConfigError(
            f"scoring.kind=expectation needs a tokenizer that writes digits one by one, and that of "
            f"'{vlm.uri}' does not; use greedy or samples"
        )
    return [i[0] for i in ids[:10]], ids[10][0]


@torch.no_grad()
def expected_scores(vlm: VLM, greedy: Completions) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the score that a model was about to write.

    Args:
        vlm: the model, in evaluation mode.
        greedy: N completions of it.

    Returns:
        (N,) means in [1, 5] and (N,) deviations; NaN for an answer that cannot be read.
    """
    digits, point = digit_tokens(vlm)
    mean = torch.full((len(greedy.texts),), float("nan"))
    deviation = mean.clone()
    places = [_place(vlm, greedy, row, digits) for row in range(len(greedy.texts))]
    rows = [row for row, place in enumerate(places) if place is not None]
    if not rows:
        return mean, deviation
    starts = torch.tensor([places[row] for row in rows])
    at, place = starts.unique(return_inverse=True)
    logits = completion_logits(vlm.model, greedy.prompts, greedy.ids, greedy.mask, at)
    first = _choice(logits[rows, place.to(logits.device)], digits[1:6])
    second = _second(vlm, greedy, rows, starts, first[:, :4] >= _RARE, digits, point)
    # 1.0 … 4.9 and the one that is not followed by anything
    values = torch.tensor([[whole + tenth / 10 + _REST for tenth in range(10)] for whole in range(1, 5)])
    p = torch.cat([(first[:, :4, None] * second).flatten(1), first[:, 4:]], dim=1)
    x = torch.cat([values.flatten(), torch.tensor([5.0])])
    mean[rows] = p @ x
    deviation[rows] = (p @ x.square() - (p @ x).square()).clamp_min(0).sqrt()
    return mean, deviation


def _choice(logits: Tensor, ids: list[int]) -> Tensor:
    """Probabilities of the tokens ``ids`` among themselves, on the CPU."""
    return logits[..., ids].float().softmax(dim=-1).cpu()


def _second(
    vlm: VLM,
    greedy: Completions,
    rows: list[int],
    starts: Tensor,
    asked: Tensor,
    digits: list[int],
    point: int,
) -> Tensor:
    """(R, 4, 10) probabilities of the tenths after each whole number from 1 to 4; even where not ``asked``.

    Args:
        vlm: the model.
        greedy: its completions.
        rows: R of them.
        starts: (R,) positions of their first digits.
        asked: (R, 4) which whole numbers the model is asked about.
        digits: tokens of "0" to "9".
        point: token of ".".
    """
    which, whole = asked.nonzero(as_tuple=True)
    found = torch.full((len(rows), 4, 10), 0.1)
    if not len(which):  # all of them are 5
        return found
    repeated = [rows[i] for i in which.tolist()]
    known = greedy.ids[repeated]
    width = int(starts.max()) + 3
    ids = torch.full((len(which), max(width, known.shape[1])), vlm.pad, device=known.device)
    ids[:, : known.shape[1]] = known
    where, row = starts[which].to(ids.device), torch.arange(len(which), device=ids.device)
    ids[row, where] = torch.tensor(digits[1:5], device=ids.device)[whole.to(ids.device)]
    ids[row, where + 1] = point
    mask = (torch.arange(ids.shape[1], device=ids.device) < where[:, None] + 2).long()
    ids = ids.masked_fill(mask == 0, vlm.pad)
    at, place = (where + 2).unique(return_inverse=True)
    prompts = greedy.prompts.take(repeated)
    logits = completion_logits(vlm.model, prompts, ids[:, :width], mask[:, :width], at)
    found[which, whole] = _choice(logits[row, place], digits)
    return found


def _place(vlm: VLM, greedy: Completions, row: int, digits: list[int]) -> int | None:
    """Position of the token that is the score's first digit; ``None`` where there is no readable score."""
    text = greedy.texts[row]
    score = parse(text).score
    if score is None:
        return None
    tag = list(_ANSWER.finditer(text))
    start = tag[-1].end() if tag else 0
    key = _KEY.search(text, start)
    number = _NUMBER.search(text, key.end() if key else start)
    if number is None or float(number[0]) != score:
        return None
    ids = greedy.ids[row][greedy.mask[row].bool()].tolist()
    # the score stands near the end
    for place in range(len(ids) - 1, -1, -1):
        before = vlm.tokenizer.decode(
            ids[:place], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if len(before) <= number.start():
            exact = len(before) == number.start() and ids[place] == digits[int(number[0][0])]
            return place if exact else None
    return None
