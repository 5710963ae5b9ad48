"""From rewards to a loss: group-relative advantages and the clipped policy objectives, with TRL's names.

GRPO: Shao et al. 2024 (DeepSeekMath), section 4.1; Dr. GRPO: Liu et al. 2025; DAPO: Yu et al. 2025;
sequence-level ratios: Zheng et al. 2025 (GSPO). Nothing outside the completion mask reaches a sum or a gradient,
not even as 0 times infinity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
ImportanceLevel = Literal["token", "sequence"]
RewardScale = Literal["group", "batch", "none"]

# exp(20) is 5e8: beyond that a ratio says only that something broke; the gradient there is 0.
_MAX_LOG_RATIO = 20.0


class Advantages(NamedTuple):
    """Advantages of N completions."""

    values: Tensor  #: (N,) float32
    zero_variance: Tensor  #: () share of groups whose rewards are all equal: they teach nothing


def group_advantages(
    rewards: Tensor, group_size: int, scale: RewardScale = "group", eps: float = 1e-4
) -> Advantages:
    """Reward minus the mean of its group, divided by a standard deviation (unbiased) plus ``eps``.

    Args:
        rewards: (N,) with the rollouts of an image side by side; NaN where nothing could be graded. Such a
            completion stays out of its group's mean and gets advantage 0.
        group_size: G, rollouts an image; N is a multiple.
        scale: ``group`` = the group's deviation (GRPO), ``batch`` = that of all N rewards, ``none`` = no
            division (Dr. GRPO: a question is not made heavier by being nearly solved).
        eps: in units of reward.

    Raises:
        ConfigError: N is no multiple of G, or G is below 2.
    """
    if group_size < 2 or rewards.ndim != 1 or len(rewards) % group_size:
        raise ConfigError(
            f"rewards of shape {tuple(rewards.shape)} do not form groups of {group_size}: rollouts must be "
            "at least 2 an image and complete"
        )
    groups = rewards.float().view(-1, group_size)
    centred = groups - groups.nanmean(dim=1, keepdim=True)
    std = _nan_std(groups)
    equal = torch.isclose(std.nan_to_num(0.0), torch.zeros_like(std))
    if scale == "group":
        centred = centred / (std + eps)
    elif scale == "batch":
        centred = centred / (_nan_std(groups.view(1, -1)) + eps)
    return Advantages(centred.flatten().nan_to_num(0.0), equal.float().mean())


def _nan_std(values: Tensor) -> Tensor:
    """(R, 1) unbiased standard deviation of each row without its NaN; NaN for fewer than two values."""
    count = (~values.isnan()).sum(dim=1, keepdim=True)
    squares = ((values - values.nanmean(dim=1, keepdim=True)) ** 2).nansum(dim=1, keepdim=True)
    return torch.where(count > 1, squares / (count - 1).clamp_min(1), float("nan")).sqrt()


def k3_kl(logps: Tensor, reference: Tensor) -> Tensor:
    """Schulman's third estimate of KL(policy || reference) per token, at least 0: exp(d) - d - 1 with d = ref - logp.

    Args:
        logps: (B, T) of the policy.
        reference: (B, T) of the reference, at the same tokens.
    """
    d = (reference - logps).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return torch.expm1(d) - d


@dataclass(frozen=True)
class Objective:
    """Which loss. The defaults are Q-Insight's (paper and released code).

    Attributes:
        loss: how tokens are averaged. ``grpo``: mean of each completion, then over completions; ``bnpo``:
            over all tokens of the batch; ``dr_grpo``: sum over ``batch * max_completion_length``, so that
            long wrong answers are not favoured; ``dapo``: sum over the tokens of the whole update
            (``num_items``).
        importance_level: ratio of each token, or of each completion (its geometric mean: GSPO).
        scale_rewards: see :func:`group_advantages`.
        epsilon_low: the ratio is clipped below 1 - this.
        epsilon_high: the ratio is clipped above 1 + this (DAPO: 0.28).
        beta: weight of the KL term; 0 needs no reference.
        kl_bias_correction: multiply the KL by the ratio (TRL's default; the papers do not).
        max_completion_length: limit of generation in tokens, the divisor of ``dr_grpo``.
    """

    loss: LossType = "grpo"
    importance_level: ImportanceLevel = "token"
    scale_rewards: RewardScale = "group"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    beta: float = 1e-3
    kl_bias_correction: bool = False
    max_completion_length: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon_low <= 1 or not 0 <= self.epsilon_high < math.inf:
            raise ConfigError(
                f"objective: epsilon_low={self.epsilon_low} must lie in [0, 1] and "
                f"epsilon_high={self.epsilon_high} be a number, at least 0"
            )
        if not 0 <= self.beta < math.inf or self.max_completion_length < 1:
            raise ConfigError(
                f"objective: beta={self.beta} must be a number, at least 0, and "
                f"max_completion_length={self.max_completion_length} at least 1"
            )


class PolicyLoss(NamedTuple):
    """A loss and what to log with it; all but the loss are detached scalars."""

    loss: Tensor
    kl: Tensor  #: mean k3 over tokens, nats, without bias correction; NaN without a reference
    clip_low: Tensor  #: share of tokens (completions at sequence level) held by the lower clip
    clip_high: Tensor  #: the same of the upper clip
    ratio: Tensor  #: mean importance ratio; 1 when strictly on-policy


def policy_loss(
    objective: Objective,
    logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    old_logps: Tensor | None = None,
    ref_logps: Tensor | None = None,
    num_items: Tensor | float | None = None,
) -> PolicyLoss:
    """Clipped policy loss of a micro-batch, plus ``beta`` times the KL to the reference.

    Args:
        objective: which loss.
        logps: (B, T) of the current policy, with gradient; from :func:`rali_zoo.vlm.generation.token_logps`.
        advantages: (B,).
        mask: (B, T) nonzero on completion tokens up to and with the first end-of-sequence.
        old_logps: (B, T) of the policy that sampled; ``None`` when that is the current one (strictly
            on-policy: the ratio is 1 in value and carries the gradient).
        ref_logps: (B, T) of the reference; needed where ``beta`` > 0.
        num_items: for ``dapo``, completion tokens of the whole update divided by (ranks * accumulated
            micro-batches), as those average what they add up; this micro-batch's own tokens if ``None``.

    Raises:
        ConfigError: ``beta`` > 0 without ``ref_logps``.
    """
    keep = mask.bool()
    counts = keep.sum(dim=1).clamp_min(1)
    old = logps.detach() if old_logps is None else old_logps
    # zeroed before any function of it, so that padding can put neither inf nor NaN into the gradient
    log_ratio = torch.where(keep, logps - old, 0.0)
    if objective.importance_level == "sequence":
        log_ratio = (log_ratio.sum(dim=1) / counts)[:, None]
    ratio = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()
    clipped = ratio.clamp(1 - objective.epsilon_low, 1 + objective.epsilon_high)
    gain = advantages[:, None].to(ratio.dtype)
    per_token = -torch.min(ratio * gain, clipped * gain).expand_as(logps)

    kl = logps.new_full((), float("nan"))
    if ref_logps is not None:
        per_token_kl = k3_kl(torch.where(keep, logps, 0.0), torch.where(keep, ref_logps, 0.0))
        kl = (per_token_kl * keep).sum().detach() / keep.sum().clamp_min(1)
        if objective.beta > 0:
            weight = ratio if objective.kl_bias_correction else 1.0
            per_token = per_token + objective.beta * per_token_kl * weight
    elif objective.beta > 0:
        raise ConfigError(
            f"objective: beta={objective.beta} needs a reference policy; set beta to 0 without one"
        )

    loss = _aggregate(objective, torch.where(keep, per_token, 0.0), counts, keep, num_items)
    with torch.no_grad():
        where = keep if objective.importance_level == "token" else torch.ones_like(ratio, dtype=torch.bool)
        low = (ratio < 1 - objective.epsilon_low) & (gain < 0) & where
        high = (ratio > 1 + objective.epsilon_high) & (gain > 0) & where
        total = where.sum().clamp_min(1)
        stats = low.sum() / total, high.sum() / total, (ratio * where).sum() / total
    return PolicyLoss(loss, kl, *stats)


def _aggregate(
    objective: Objective, per_token: Tensor, counts: Tensor, keep: Tensor, num_items: Tensor | float | None
) -> Tensor:
    """Average (B, T) per-token losses, 0 outside the mask, as the loss type wants it."""
    if objective.loss == "grpo":
        return (per_token.sum(dim=1) / counts).mean()
    if objective.loss == "dr_grpo":
        return per_token.sum() / (len(per_token) * objective.max_completion_length)
    items = keep.sum() if objective.loss == "bnpo" or num_items is None else num_items
    return per_token.sum() / torch.as_tensor(items, device=per_token.device).clamp_min(1)
