"""The losses of alignment and of score fine-tuning. Pure functions of tensors.

Whatever precision a network computes in, its losses sum small differences over a batch, and are computed in
float32 at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

RegressionLoss = Literal["mse", "mae", "huber"]


def _full(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def alike_scores(mos: Tensor, datasets: Sequence[str], sigma: float) -> Tensor:
    """How far two images of a batch may stand for each other: a Gaussian of the distance of their MOS.

    Args:
        mos: (B,) in [1, 5].
        datasets: B references; images of two data sets are not alike at all, as their scales disagree.
        sigma: standard deviation, points of MOS, above 0.

    Returns:
        (B, B) in [0, 1]; 0 where a MOS is NaN.
    """
    same = [[a == b for b in datasets] for a in datasets]
    near = torch.exp(-0.5 * ((_full(mos)[:, None] - _full(mos)[None, :]) / sigma).square())
    return near.nan_to_num(0.0) * torch.tensor(same, device=mos.device)


def info_nce(
    image: Tensor, text: Tensor, text_ids: Tensor, logit_scale: Tensor | float, alike: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE in which equal texts are positives of each other, not negatives.

    With all texts different this is CLIP's loss (paper section 4, stage 1). When several images of a
    batch carry the same text, the target is uniform over them (as in UniCL), so that no image is
    pushed away from its own description.

    Args:
        image: (B, D) embeddings; normalised here.
        text: (B, D) embeddings; normalised here.
        text_ids: (B,) integers, equal where the texts are equal.
        logit_scale: 1 / temperature, positive.
        alike: (B, B) symmetric, in [0, 1]: further pairs that are positives, by how much, such as
            :func:`alike_scores`.

    Returns:
        Scalar loss, nats.
    """
    with torch.autocast(image.device.type, enabled=False):
        image, text = F.normalize(_full(image), dim=-1), F.normalize(_full(text), dim=-1)
        logits = logit_scale * image @ text.T
        same = (text_ids[:, None] == text_ids[None, :]).to(logits.dtype)
        if alike is not None:
            same = torch.maximum(same, alike.to(logits.dtype))
        target = same / same.sum(dim=1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pointwise(pred: Tensor, mos: Tensor, kind: RegressionLoss) -> Tensor:
    """Mean error of scores (B,) against MOS (B,), both in [1, 5]."""
    functions = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}
    return functions[kind](_full(pred), _full(mos))


def plcc_loss(pred: Tensor, mos: Tensor, eps: float = 1e-6) -> Tensor:
    """(1 - PLCC) / 2 over a batch, in [0, 1]; 0.5 where either side is constant.

    Args:
        pred: (B,) scores.
        mos: (B,) targets.
        eps: added to the norms, so that a constant batch has a finite gradient.
    """
    pred, mos = _full(pred), _full(mos)
    p, m = pred - pred.mean(), mos - mos.mean()
    return (1 - (p * m).sum() / (p.norm() * m.norm() + eps)) / 2


def fidelity_loss(pred: Tensor, mos: Tensor, std: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Thurstone fidelity ranking loss over all pairs of a batch (DeQA-Score, after Tsai et al. 2007).

    p = Phi((s_i - s_j) / sqrt(2)) is the predicted probability that i is better than j. The target is
    Phi((m_i - m_j) / sqrt(sd_i^2 + sd_j^2)) where the standard deviations of the human scores are
    known, else 1, 0.5 or 0 by the order of the MOS. Pairs must come from one data set, or the order
    means nothing: use :func:`within_groups`.

    Args:
        pred: (B,) scores.
        mos: (B,) targets.
        std: (B,) standard deviations of the MOS; NaN where unknown.
        eps: keeps the square roots differentiable at 0.

    Returns:
        Scalar in [0, 1]; 0 when the batch has fewer than two images.
    """
    i, j = torch.triu_indices(len(pred), len(pred), offset=1, device=pred.device)
    if len(i) == 0:
        return pred.sum() * 0.0
    pred, mos = _full(pred), _full(mos)
    prob = torch.special.ndtr((pred[i] - pred[j]) / 2**0.5)
    target = (torch.sign(mos[i] - mos[j]) + 1) / 2
    if std is not None:
        scale = (_full(std[i]) ** 2 + _full(std[j]) ** 2).sqrt()
        soft = torch.special.ndtr((mos[i] - mos[j]) / scale.clamp_min(eps))
        target = torch.where(torch.isfinite(scale) & (scale > eps), soft, target)
    fidelity = (prob * target + eps).sqrt() + ((1 - prob) * (1 - target) + eps).sqrt()
    return (1 - fidelity).clamp_min(0).mean()


def within_groups(groups: Sequence[str], at_least: int = 2) -> list[list[int]]:
    """Positions of a batch by data set, for losses that compare images; smaller groups are left out."""
    positions: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        positions.setdefault(group, []).append(position)
    return [p for p in positions.values() if len(p) >= at_least]


def score_loss(
    pred: Tensor,
    mos: Tensor,
    std: Tensor,
    datasets: Sequence[str],
    kind: RegressionLoss,
    weights: tuple[float, float, float],
) -> Tensor:
    """Weighted sum of the pointwise, PLCC and fidelity losses; the last two within each data set.

    Args:
        pred: (B,) scores in [1, 5].
        mos: (B,) MOS in [1, 5].
        std: (B,) standard deviations, NaN where unknown.
        datasets: B references; ranking and correlation never cross data sets, whose scales disagree.
        kind: the pointwise loss.
        weights: of the pointwise, PLCC and fidelity terms.
    """
    pred = _full(pred)
    total = pred.sum() * 0.0
    if weights[0]:
        total = total + weights[0] * pointwise(pred, mos, kind)
    if weights[1] or weights[2]:
        groups = within_groups(datasets)
        for group in groups:
            share = len(group) / sum(map(len, groups))
            p, m = pred[group], mos[group]
            if weights[1]:
                total = total + weights[1] * share * plcc_loss(p, m)
            if weights[2]:
                total = total + weights[2] * share * fidelity_loss(p, m, std[group])
    return total


def rank_loss(score: Tensor, chain: Tensor, margin: float = 0.08, temperature: float = 0.2) -> Tensor:
    """Logistic loss of images whose order is known: an earlier image of a chain must score higher.

    Every pair of a chain counts, one of images k places apart k times, and it is asked for k times the margin: that
    a pristine image scores below a ruined one is a worse fault than two levels that change places. RankIQA (Liu et
    al., ICCV 2017) learns from ranked degradations in this way, with a hinge.

    Args:
        score: (B,) scores in [1, 5].
        chain: (B,) integers, alike in images of one chain, which stand best first.
        margin: that neighbours in a chain should lie apart, in MOS.
        temperature: of the logistic function, in MOS; positive.

    Returns:
        Scalar, at least 0; 0 where no chain has two images.
    """
    score = _full(score)
    i, j = torch.triu_indices(len(score), len(score), offset=1, device=score.device)
    same = chain[i] == chain[j]
    i, j = i[same], j[same]
    if len(i) == 0:
        return score.sum() * 0.0
    apart = (j - i).to(score.dtype)
    loss = F.softplus((margin * apart - (score[i] - score[j])) / temperature)
    return (apart * loss).sum() / apart.sum()
