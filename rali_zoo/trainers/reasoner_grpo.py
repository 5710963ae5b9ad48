"""Group relative policy optimisation of a vision-language model, one set of rollouts at a time.

Shao et al., "DeepSeekMath" (2024), section 4.1; Q-Insight (NeurIPS 2025), section 3. Lightning has no part in
it: :class:`~rali_zoo.trainers.Reasoner` steps the optimizer and logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rali_zoo.rl.monitor import CollapseMonitor
from rali_zoo.rl.objective import Objective, PolicyLoss, group_advantages, policy_loss
from rali_zoo.rl.rewards import Graded, RewardSet, Rollouts
from rali_zoo.trainers.reasoner_options import Sampling
from rali_zoo.trainers.reasoner_tasks import Question, rollouts_of
from rali_zoo.trainers.reasoner_weights import Reference
from rali_zoo.vlm.generation import Completions, RolloutEngine, completion_logps, evaluating
from rali_zoo.vlm.model import VLM, Prompts


class Rollout(NamedTuple):
    """N completions of a batch, graded."""

    completions: Completions
    texts: Rollouts  #: the same, read, with what is known of their images
    graded: Graded
    advantages: Tensor  #: (N,)
    zero_variance: Tensor  #: share of images whose completions all earn the same
    old: Tensor | None  #: (N, C) log-probabilities when sampled; ``None`` when strictly on-policy
    reference: Tensor | None  #: (N, C); ``None`` without a KL term


class Reinforcement:
    """Samples, grades, and turns grades into a loss.

    Args:
        vlm: the policy and its processor.
        engine: what samples from the policy.
        sampling: how.
        objective: which loss.
        rewards: what completions are worth.
        monitor: what watches for collapse.
    """

    def __init__(
        self,
        vlm: VLM,
        engine: RolloutEngine,
        sampling: Sampling,
        objective: Objective,
        rewards: RewardSet,
        monitor: CollapseMonitor,
    ) -> None:
        self.vlm, self.engine, self.sampling = vlm, engine, sampling
        self.objective, self.rewards, self.monitor = objective, rewards, monitor
        self.reference = Reference(vlm.model) if objective.beta > 0 else None

    @torch.no_grad()
    def roll_out(self, questions: Sequence[Question], prompts: Prompts, seed: int) -> Rollout:
        """Sample the completions of B questions and grade them; the policy is not changed."""
        each, temperature = self.sampling.rollouts, self.sampling.temperature
        limit = self.objective.max_completion_length
        done = self.engine.generate(prompts, each, limit, temperature, seed)
        texts = rollouts_of(questions, done)
        graded = self.rewards(texts)
        values, zero_variance = group_advantages(graded.total, each, self.objective.scale_rewards)
        old = reference = None
        if self.sampling.updates > 1:
            with evaluating(self.vlm.model):
                old, _ = self._logps(self.vlm.model, done)
        if self.reference is not None:
            with self.reference.policy(self.vlm.model) as before:
                reference, _ = self._logps(before, done)
        advantages = values.to(done.ids.device)
        return Rollout(done, texts, graded, advantages, zero_variance, old, reference)

    def _logps(self, model: nn.Module, done: Completions) -> tuple[Tensor, Tensor]:
        temperature = self.sampling.temperature
        return completion_logps(self.vlm, model, done.prompts, done.ids, done.mask, temperature)

    def loss(self, rollout: Rollout, num_items: Tensor | None) -> tuple[PolicyLoss, Tensor]:
        """The loss of the policy as it is now, and (N,) mean entropies of the completions in nats.

        Args:
            rollout: of :meth:`roll_out`.
            num_items: see :func:`rali_zoo.rl.objective.policy_loss`.
        """
        done = rollout.completions
        logps, entropy = self._logps(self.vlm.model, done)
        loss = policy_loss(
            self.objective, logps, rollout.advantages, done.mask, rollout.old, rollout.reference, num_items
        )
        return loss, entropy.sum(dim=1) / done.mask.sum(dim=1)

    def watch(self, rollout: Rollout, entropy: Tensor) -> dict[str, float]:
        """Show completions, with their entropy (N,), to the monitor, which may warn; all there is to log."""
        done, graded = rollout.completions, rollout.graded
        total, size = graded.total.tolist(), len(rollout.advantages)
        self.monitor.update(rollout.texts, total, self.sampling.rollouts, done.truncated, entropy.tolist())
        return {
            **graded.logs(),
            **{f"monitor/{name}": value for name, value in self.monitor.values().items()},
            "rollout/length": float(done.mask.sum(dim=1).float().mean()),
            "rollout/truncated": sum(done.truncated) / size,
            "rollout/zero_variance": float(rollout.zero_variance),
            "rollout/distinct_texts": len(set(done.texts)) / size,
            "policy/entropy": float(entropy.mean()),
        }
