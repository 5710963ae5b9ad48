"""Group relative policy optimisation (GRPO) of a vision-language model, one set of rollouts at a time.

Shao et al., "DeepSeekMath" (2024), section 4.1; Q-Insight (NeurIPS 2025), section 3. Lightning has no part in
it: :class:`~rali_zoo.trainers.Reasoner` steps the optimizer and logs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from rali_zoo.errors import ConfigError
from rali_zoo.rl.monitor import CollapseMonitor
from rali_zoo.rl.objective import Objective, PolicyLoss, group_advantages, policy_loss
from rali_zoo.rl.rewards import Graded, RewardSet, Rollouts
from rali_zoo.vlm.generation import Completions, Engine, completion_logps, evaluating
from rali_zoo.vlm.model import VLM, Prompts
from rali_zoo.vlm.questions import Question
from rali_zoo.vlm.sharding import is_sharded, reshard


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn for reinforcement; their length is ``grpo.max_completion_length``.

    Attributes:
        rollouts: completions an image (G), at least 2.
        temperature: of the sampler; also divides the logits of the policy.
        updates: steps of the optimizer on each set of rollouts. 1 is strictly on-policy and leaves the
            optimisation to Lightning (accumulation, automatic mixed precision); more make the clipped ratio
            matter.
        engine: what samples in training and its validation: ``transformers``, or ``vllm`` on GPUs
            (:class:`rali_zoo.vlm.generation_vllm.VLLMEngine`, not yet run on one by us; ``rali-zoo[vllm]``).
        vllm_memory: share of the GPU's memory in (0, 1) for ``vllm``.
        vllm_length: longest prompt and completion together for ``vllm``, in tokens.
    """

    rollouts: int = 8
    temperature: float = 1.0
    updates: int = 1
    engine: Literal["transformers", "vllm"] = "transformers"
    vllm_memory: float = 0.3
    vllm_length: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.vllm_memory < 1 or self.vllm_length < 1:
            raise ConfigError(
                f"sampling: vllm_memory={self.vllm_memory} is in (0, 1) and vllm_length={self.vllm_length} "
                "above 0"
            )
        if self.rollouts < 2 or self.updates < 1 or not 0 < self.temperature < math.inf:
            raise ConfigError(
                f"sampling: rollouts={self.rollouts} is at least 2, updates={self.updates} at least 1, and "
                f"temperature={self.temperature} a number above 0"
            )


class Reference:
    """The policy as it was when reinforcement began: the model without its adapter, or a frozen copy.

    Args:
        model: as it is now.
    """

    def __init__(self, model: nn.Module) -> None:
        #: the frozen copy; ``None`` where the adapter is switched off instead
        self.copy: nn.Module | None = None
        if not hasattr(model, "disable_adapter"):
            self.copy = copy.deepcopy(model).eval().requires_grad_(False)

    @contextmanager
    def policy(self, model: nn.Module) -> Iterator[nn.Module]:
        """The reference, on the device and in the type of ``model``, without gradients."""
        with torch.no_grad():
            if self.copy is None:
                # peft takes requires_grad off and puts it back: both on slices, or both on whole weights
                reshard(model)
                with cast(Any, model).disable_adapter():
                    yield model
                    reshard(model)
                return
            like = next(model.parameters())
            if not is_sharded(self.copy):
                self.copy.to(device=like.device, dtype=like.dtype)
            yield self.copy


class Rollout(NamedTuple):
    """N completions of a batch, graded."""

    completions: Completions
    texts: Rollouts  #: the same, parsed, with what is known of their images
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
        engine: Engine,
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
        texts = rollouts_of(questions, done, limit)
        graded = self.rewards(texts)
        values, zero_variance = group_advantages(graded.total, each, self.objective.scale_rewards)
        old = reference = None
        if self.sampling.updates > 1:
            with evaluating(self.vlm.model):
                old, _ = self._logps(self.vlm.model, done, with_entropy=False)
        if self.reference is not None:
            with self.reference.policy(self.vlm.model) as before:
                reference, _ = self._logps(before, done, with_entropy=False)
        advantages = values.to(done.ids.device)
        return Rollout(done, texts, graded, advantages, zero_variance, old, reference)

    def _logps(self, model: nn.Module, done: Completions, with_entropy: bool = True) -> tuple[Tensor, Tensor]:
        about = (done.prompts, done.ids, done.mask, self.sampling.temperature, with_entropy)
        return completion_logps(self.vlm, model, *about)

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


def rollouts_of(questions: Sequence[Question], completions: Completions, limit: int) -> Rollouts:
    """Completions with what is known of their images, as the rewards want them.

    Args:
        questions: B, of which those about the degradation share a vocabulary.
        completions: B * n, those of a question side by side.
        limit: of their length in tokens.
    """
    vocabularies = {q.asked.vocabulary for q in questions} - {""}
    each = len(completions.texts) // len(questions)
    rows = [q for q in questions for _ in range(each)]
    return Rollouts(
        completions.texts,
        task=[q.asked.task for q in rows],
        dataset=[q.dataset for q in rows],
        id=[q.id for q in rows],
        mos=torch.tensor([q.mos for q in rows]),
        distortion=[q.distortion for q in rows],
        level=[q.level for q in rows],
        length=completions.mask.sum(dim=1).cpu(),
        limit=limit,
        vocabulary=next(iter(vocabularies), "q-insight"),
    )
