"""A vision-language model that learns to describe an image and then to score it.

Supervised on descriptions first (``objective: sft``), by reinforcement then (``objective: grpo``, as in
Q-Insight and VisualQuality-R1, both NeurIPS 2025). One module for a model of a million parameters on a CPU
and one of seven billion on GPUs.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from rali_zoo.errors import ConfigError
from rali_zoo.models.base import BackboneNetwork, loading_weights
from rali_zoo.models.files import load_checkpoint
from rali_zoo.models.vlm import OTHER_WORDS, Scoring, VLMNetwork, load_adapter, one_view
from rali_zoo.rl.monitor import CollapseMonitor, Limits
from rali_zoo.rl.objective import Objective, PolicyLoss
from rali_zoo.rl.rewards import RewardOptions, RewardSet
from rali_zoo.trainers.base import IQAModule
from rali_zoo.trainers.reasoner_grpo import Reinforcement, Rollout
from rali_zoo.trainers.reasoner_options import (
    Answers,
    Sampling,
    Schedule,
    Tuning,
    as_settings,
    plain,
)
from rali_zoo.trainers.reasoner_scores import UNPARSEABLE, text_metrics
from rali_zoo.trainers.reasoner_tasks import Question, Tasks
from rali_zoo.trainers.reasoner_weights import adapter_of, prepare, spread, still
from rali_zoo.types import Batch
from rali_zoo.vlm.generation import RolloutEngine, TransformersEngine, completion_logps
from rali_zoo.vlm.model import VLM, Precision, Prompts, copy_vision, load_vlm, merged, vision_tower
from rali_zoo.vlm.sharding import is_sharded

if TYPE_CHECKING:
    import pandas as pd


class Reasoner(IQAModule):
    """Writes ``<think>…</think><answer>…</answer>`` about an image; the score is read from the answer.

    Args:
        vlm: vision-language model: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER`` or ``rali:vlm-tiny``.
        objective: ``sft`` = imitate the descriptions of the data with the MOS behind them; ``grpo`` = sample,
            grade, and reinforce what was better than the image's other samples.
        init_from: another run of the same model whose weights are the start: a checkpoint, a scorer file, or
            the name of a scorer that the package carries. An adapter in it is added to the weights, and
            ``grpo`` measures the KL from there.
        vision_from: likewise; a Regression or RALI whose backbone becomes the vision tower of
            ``rali:vlm-tiny``, or a Reasoner whose tower is taken over: a language model learns far faster
            from eyes that can tell quality.
        prompt: name of the question about the score.
        degradation_prompt: name of the question about the degradation; ``null`` leaves that task out.
        degradation_share: probability in [0, 1] that a training image of known degradation is asked about
            that, and not about the score.
        answers: what ``sft`` imitates: the description with the verdict behind it, or (``text``, RACT's
            labels) up to ``</think>`` and nothing after it, not even an end token, so that a model that can
            rate already goes on to its verdict as before; such images need no MOS. ``score`` is the verdict
            behind an empty description.
        tuning: which weights learn.
        schedule: learning rate and optimizer.
        sampling: how completions are drawn for ``grpo``.
        grpo: the loss of ``grpo``; its ``max_completion_length`` is the limit of length everywhere.
        rewards: reward to weight; Q-Insight's if ``null``.
        reward_options: settings of the rewards.
        limits: when the run warns of collapse.
        window: completions that are looked at for that.
        scoring: how validation, test and ``score`` make a score of what is written.
        seed: of the samples; with the epoch and the batch it makes a resumed run go on as it would have.

    Raises:
        ConfigError: settings that do not fit each other.
        CheckpointError: weights that cannot be read.
    """

    network: VLMNetwork
    no_score = UNPARSEABLE

    def __init__(
        self,
        vlm: str = "rali:vlm-tiny",
        objective: Literal["sft", "grpo"] = "sft",
        init_from: str | None = None,
        vision_from: str | None = None,
        prompt: str = "score-short",
        degradation_prompt: str | None = None,
        degradation_share: float = 0.5,
        answers: Answers = "text-and-score",
        tuning: Tuning | None = None,
        schedule: Schedule | None = None,
        sampling: Sampling | None = None,
        grpo: Objective | None = None,
        rewards: dict[str, float] | None = None,
        reward_options: RewardOptions | None = None,
        limits: Limits | None = None,
        window: int = 256,
        scoring: Scoring | None = None,
        seed: int = 0,
    ) -> None:
        tuning, scoring = as_settings(Tuning, tuning), as_settings(Scoring, scoring)
        sampling, grpo = as_settings(Sampling, sampling), as_settings(Objective, grpo)
        #: of a run with an adapter, a checkpoint holds no more than that; the rest is what ``vlm`` names
        adapter_only = tuning.method == "lora" and init_from is None and vision_from is None
        network = VLMNetwork(
            vlm,
            prompt,
            scoring,
            grpo.max_completion_length,
            sampling.temperature,
            seed,
            tuning.precision,
            adapter_of(tuning) if adapter_only else None,
            prepare(_starting_model(vlm, init_from, vision_from, adapter_only, tuning.precision), tuning),
        )
        super().__init__(network)
        self.tuning, self.scoring, self.sampling, self.grpo = tuning, scoring, sampling, grpo
        self.schedule, self.limits = as_settings(Schedule, schedule), as_settings(Limits, limits)
        self.reward_options = as_settings(RewardOptions, reward_options)
        self.save_hyperparameters()
        self.hparams.update({name: plain(value) for name, value in self.hparams.items()})
        self.objective, self.seed = objective, seed
        self.tasks = Tasks(prompt, degradation_prompt, degradation_share, answers)
        self.rewards = RewardSet(rewards, self.reward_options)
        self._check()
        self.adapter_only = adapter_only
        self.strict_loading = not adapter_only
        #: names of the weights that learn
        self.learning = {name for name, p in self.named_parameters() if p.requires_grad}
        network.engine = self._engine(objective)
        self.monitor = CollapseMonitor(window, self.limits)
        #: holds the policy as it is now, which is what the KL is measured from; scoring needs none of it
        self.reinforcement: Reinforcement | None = None
        if objective == "grpo" and not loading_weights():
            self.reinforcement = Reinforcement(
                self.vlm, self.engine, self.sampling, self.grpo, self.rewards, self.monitor
            )
        self.automatic_optimization = objective == "sft" or self.sampling.updates == 1
        self._warned = False

    def _engine(self, objective: str) -> RolloutEngine:
        # a trained reasoner scores anywhere, whatever sampled while it was reinforced
        if objective == "sft" or self.sampling.engine == "transformers" or loading_weights():
            return TransformersEngine(self.vlm)
        from rali_zoo.vlm.generation_vllm import VLLMEngine

        return VLLMEngine(self.vlm, self.sampling.vllm_memory, self.sampling.vllm_length)

    def _check(self) -> None:
        limit, options = self.grpo.max_completion_length, self.reward_options
        answers = self.tasks.answers
        if answers != "text-and-score" and self.objective == "grpo":
            raise ConfigError(
                f"answers={answers} is what objective=sft imitates; leave it out of objective=grpo"
            )
        if "length_guard" in self.rewards.weights and options.max_length != limit:
            raise ConfigError(
                f"reward_options.max_length={options.max_length} is where generation stops, and that is "
                f"grpo.max_completion_length={limit}; give both the same"
            )
        asked, graded = self.tasks.degradation, {"degradation_class", "degradation_level"}
        if asked and graded & set(self.rewards.weights) and asked.vocabulary != options.vocabulary:
            raise ConfigError(
                f"degradation_prompt asks for the classes of {asked.vocabulary!r}, and the rewards grade "
                f"those of {options.vocabulary!r}; set reward_options.vocabulary={asked.vocabulary}"
            )

    # ---- images to texts and scores ---------------------------------------------------------

    @property
    def vlm(self) -> VLM:
        """The vision-language model."""
        return self.network.vlm

    @property
    def policy(self) -> torch.nn.Module:
        """The model whose weights learn."""
        return self.network.policy

    @property
    def engine(self) -> RolloutEngine:
        """What continues prompts."""
        return self.network.engine

    def train(self, mode: bool = True) -> Reasoner:
        """Training mode for what learns; in reinforcement dropout and batch statistics stay off."""
        super().train(mode)
        if self.tuning.freeze_vision:
            vision_tower(self.policy)[1].eval()
        if mode and self.tuning.freeze_language:
            still(self.policy)  # but in training mode, which gradient checkpointing asks for
            vision_tower(self.policy)[1].train()
        if self.objective == "grpo":
            still(self.policy)
        return self

    # ---- learning -----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take over the DataModule's view and training sets; refuse rewards that could not work."""
        super().setup(stage)
        alone = stage == "fit" and self.objective == "grpo" and self.datamodule.batch_size < 2
        for name in ("thurstone_fidelity", "diversity_guard"):
            if alone and name in self.rewards.weights:
                raise ConfigError(f"the reward {name} compares images; set data.batch_size to 2 or more")
        accumulated = self.trainer.accumulate_grad_batches > 1
        if stage == "fit" and self.objective == "grpo" and self.grpo.loss == "dapo" and accumulated:
            raise ConfigError(
                "grpo.loss=dapo divides by all tokens of an update, and they are not known before its last "
                "part; set trainer.accumulate_grad_batches=1, or grpo.loss=bnpo"
            )

    def configure_model(self) -> None:
        """Spread the weights over the processes of a ``ModelParallelStrategy`` (FSDP2); else do nothing."""
        if self.device_mesh is not None and not is_sharded(self.policy):
            reference = None if self.reinforcement is None else self.reinforcement.reference
            spread(self.policy, reference, self.trainer, self.device_mesh)

    def on_fit_start(self) -> None:
        """Training mode: transformers hands its models over in evaluation mode."""
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Scalar loss of a batch of images; ``None`` where several updates were made here."""
        key = f"{self.seed}|{self.current_epoch}|{batch_idx}|{self.global_rank}"
        seed = zlib.crc32(key.encode())
        questions = self.tasks.ask(batch, seed)
        prompts = self.vlm.ask(one_view(batch["image"]), [q.asked for q in questions])
        if self.objective == "sft":
            return self._imitate(questions, prompts)
        if self.reinforcement is None:
            raise ConfigError("a model that was loaded for scoring cannot be reinforced; use init_from")
        rollout = self.reinforcement.roll_out(questions, prompts, seed)
        items = None
        if self.grpo.loss == "dapo":
            tokens = rollout.completions.mask.sum().float()
            items = cast(Tensor, self.trainer.strategy.reduce(tokens, reduce_op="mean"))
        if self.automatic_optimization:
            return self._update(self.reinforcement, rollout, items, first=True).loss
        self._several_updates(self.reinforcement, rollout, items)
        return None

    def _imitate(self, questions: list[Question], prompts: Prompts) -> Tensor:
        """Mean negative log-probability of a token of the right completions."""
        ended = self.tasks.answers != "text"
        ids, mask = self.vlm.write([self.tasks.answer(q) for q in questions], ended)
        longest, limit = int(mask.sum(dim=1).max()), self.grpo.max_completion_length
        if longest > limit and not self._warned:
            self._warned = True
            warnings.warn(
                f"a completion to imitate has {longest} tokens, and generation stops at {limit}: raise "
                "grpo.max_completion_length, or the model's answers are cut (this is said once)",
                stacklevel=2,
            )
        logps, _ = completion_logps(self.vlm, self.policy, prompts, ids, mask)
        loss = -logps.sum() / mask.sum()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(questions))
        return loss

    def _update(self, loop: Reinforcement, rollout: Rollout, items: Tensor | None, first: bool) -> PolicyLoss:
        """The loss of one update, logged; what was sampled is logged with the first one."""
        loss, entropy = loop.loss(rollout, items)
        names = loss._fields[1:] if loop.reference is not None else ("clip_low", "clip_high", "ratio")
        values = {f"policy/{name}": getattr(loss, name) for name in names}
        if first:
            values |= loop.watch(rollout, entropy)
        self.log_dict(values, batch_size=1)
        self.log("train/loss", loss.loss.detach(), prog_bar=True, batch_size=1)
        return loss

    def _several_updates(self, loop: Reinforcement, rollout: Rollout, items: Tensor | None) -> None:
        """Steps of the optimizer on the same rollouts (manual optimisation)."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        for update in range(self.sampling.updates):
            loss = self._update(loop, rollout, items, first=update == 0)
            optimizer.zero_grad()
            self.manual_backward(loss.loss)
            if self.schedule.max_grad_norm > 0:
                self.clip_gradients(optimizer, self.schedule.max_grad_norm, "norm")
            optimizer.step()
            scheduler.step()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """The Trainer's clipping where it has any, else ``schedule.max_grad_norm``."""
        value = gradient_clip_val if gradient_clip_val is not None else self.schedule.max_grad_norm
        if value > 0:
            self.clip_gradients(optimizer, value, gradient_clip_algorithm or "norm")

    def configure_optimizers(self) -> Any:
        """AdamW on what learns; the learning rate as ``schedule`` says."""
        learning = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=self.schedule.lr, weight_decay=self.schedule.weight_decay)
        total = self.total_steps
        if not self.automatic_optimization:
            total *= self.sampling.updates
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.factor(step, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- evaluation ---------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores and texts of a validation batch."""
        self._evaluate(batch, dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores and texts of a test batch."""
        self._evaluate(batch, dataloader_idx)

    def _evaluate(self, batch: Batch, loader: int) -> None:
        scored = self.network.scored(batch["image"])
        self.evaluation.add(loader, batch, scored.prediction, {"text": scored.texts})

    def validation_metrics(self, frame: pd.DataFrame) -> dict[str, float]:
        """See :func:`~rali_zoo.trainers.reasoner_scores.text_metrics`."""
        return text_metrics(frame)

    # ---- checkpoints --------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a scorer needs beside its weights; leave out what ``vlm`` has."""
        super().on_save_checkpoint(checkpoint)
        if self.adapter_only:
            state = checkpoint["state_dict"].items()
            checkpoint["state_dict"] = {k: v for k, v in state if k in self.learning}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, but that nothing beyond the adapter is asked of an adapter's checkpoint."""
        if self.adapter_only:
            return load_adapter(self, self.renamed(state_dict), assign)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def _starting_model(
    ref: str, init_from: str | None, vision_from: str | None, adapter_only: bool, precision: Precision
) -> VLM:
    """The model with the weights that a run starts from, before anything is frozen or added."""
    if loading_weights():  # of which an adapter's checkpoint brings no others
        return load_vlm(ref, adapter_only, precision)
    vision = None if vision_from is None else load_checkpoint(vision_from)
    backbone = vision.backbone if isinstance(vision, BackboneNetwork) else None
    loaded = load_vlm(ref, True, precision, backbone)
    if isinstance(vision, VLMNetwork):
        copy_vision(merged(vision.vlm), loaded)
    if init_from is not None:
        earlier = load_checkpoint(init_from)
        if not isinstance(earlier, VLMNetwork):
            raise ConfigError(f"init_from={init_from} is a {type(earlier).__name__}; give a Reasoner's")
        if earlier.vlm.fingerprint != loaded.fingerprint:
            raise ConfigError(f"init_from={init_from} is of another model than vlm={ref}: {OTHER_WORDS}")
        loaded.model.load_state_dict(merged(earlier.vlm).model.state_dict())
    return loaded
