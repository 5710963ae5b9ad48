"""A vision-language model that learns to describe an image and then to score it.

Supervised on descriptions first (``objective: sft``), by reinforcement then (``objective: grpo``, as in
Q-Insight and VisualQuality-R1, both NeurIPS 2025). One module for a model of a million parameters on a CPU
and one of seven billion on GPUs.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor, nn

from rali_zoo.errors import ConfigError
from rali_zoo.models.base import BackboneNetwork, loading_weights
from rali_zoo.models.files import load_checkpoint
from rali_zoo.models.vlm import OTHER_WORDS, Scoring, VLMNetwork, load_adapter, one_view
from rali_zoo.rl.grpo import Reinforcement, Rollout, Sampling
from rali_zoo.rl.monitor import CollapseMonitor, Limits, text_only_srcc
from rali_zoo.rl.objective import Objective, PolicyLoss
from rali_zoo.rl.rewards import Option, RewardSet
from rali_zoo.settings import read_settings
from rali_zoo.trainers.base import IQAModule, move
from rali_zoo.trainers.evaluation import agreement
from rali_zoo.types import Batch
from rali_zoo.vlm.generation import completion_logps
from rali_zoo.vlm.model import VLM, Precision, Prompts, copy_vision, load_vlm, merged, vision_encoder
from rali_zoo.vlm.questions import Answers, Question, Tasks
from rali_zoo.vlm.sharding import is_sharded, shard
from rali_zoo.vlm.tuning import Tuning, freeze_dropout_and_norm, prepare

if TYPE_CHECKING:
    import pandas as pd
    from lightning import Trainer
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch.distributed.device_mesh import DeviceMesh

UNPARSEABLE = "no score can be parsed from the answer"
_TEXT_FOLDS = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """AdamW and its learning rate.

    Attributes:
        lr: the highest learning rate.
        lr_end: the one at the last step of ``linear``.
        shape: after warming up: ``linear`` to ``lr_end``, or half a ``cosine`` to 0.
        warmup: share of the steps in [0, 1) over which it rises from 0.
        weight_decay: of AdamW.
        max_grad_norm: norm to which gradients are clipped; 0 for no clipping.
    """

    lr: float = 1e-6
    lr_end: float = 0.0
    shape: Literal["linear", "cosine"] = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf or not 0 <= self.lr_end <= self.lr or not 0 <= self.warmup < 1:
            raise ConfigError(
                f"schedule: lr={self.lr} is a number above 0, lr_end={self.lr_end} in [0, lr], and "
                f"warmup={self.warmup} in [0, 1)"
            )
        if not 0 <= self.weight_decay < math.inf or not 0 <= self.max_grad_norm < math.inf:
            raise ConfigError(
                f"schedule: weight_decay={self.weight_decay} and max_grad_norm={self.max_grad_norm} are numbers, "
                "at least 0"
            )

    def factor(self, step: int, total: int) -> float:
        """The learning rate at a step of ``total``, divided by ``lr``."""
        ramp = int(total * self.warmup)
        if step < ramp:
            return (step + 1) / ramp
        progress = min(1.0, (step - ramp) / max(1, total - ramp))
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        return 1 - progress * (1 - self.lr_end / self.lr)


def as_settings(kind: type[T], given: T | Mapping[str, object] | None) -> T:
    """A group of settings: the defaults for ``None``, and a mapping from a checkpoint made one again.

    Raises:
        ConfigError: a mapping with a name that the group has not, or a value of another kind.
    """
    if isinstance(given, Mapping):
        return read_settings(kind, dict(given), kind.__name__)
    return kind() if given is None else given


def _plain(value: object) -> Any:
    """A group of settings as plain values, which a checkpoint can hold."""
    return asdict(cast(Any, value)) if is_dataclass(value) else value


class ReasonerBase(IQAModule):
    """What trainers of a vision-language model share: its weights, imitation, optimizer, evaluation.

    A subclass keeps its own hyperparameters: ``save_hyperparameters()``, then :meth:`plain_hparams`.

    Args:
        vlm: vision-language model: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER`` or ``rali:vlm-tiny``.
        init_from: another run of the same model whose weights are the start.
        vision_from: another run whose vision encoder is the start.
        prompt: name of the question about the score.
        tasks: what is asked of training images, and what a right answer is.
        tuning: which weights learn.
        schedule: learning rate and optimizer.
        scoring: how a score is made of what is written.
        limit: of length in tokens, everywhere.
        temperature: of the sampler, for ``scoring.kind=samples``.
        seed: of all that is drawn.

    Raises:
        ConfigError: settings that do not fit each other.
        CheckpointError: weights that cannot be read.
    """

    network: VLMNetwork
    no_score = UNPARSEABLE
    #: steps of the optimizer a batch
    updates = 1

    def __init__(
        self,
        vlm: str,
        init_from: str | None,
        vision_from: str | None,
        prompt: str,
        tasks: Tasks,
        tuning: Tuning,
        schedule: Schedule,
        scoring: Scoring,
        limit: int,
        temperature: float,
        seed: int,
    ) -> None:
        #: of a run with an adapter, a checkpoint holds no more than that; the rest is what ``vlm`` names
        adapter_only = tuning.method == "lora" and init_from is None and vision_from is None
        start = _starting_model(vlm, init_from, vision_from, adapter_only, tuning.precision)
        adapter = tuning.adapter if adapter_only else None
        loaded = prepare(start, tuning)
        super().__init__(
            VLMNetwork(vlm, prompt, scoring, limit, temperature, seed, tuning.precision, adapter, loaded)
        )
        self.tasks, self.tuning, self.schedule = tasks, tuning, schedule
        self.limit, self.seed = limit, seed
        self.adapter_only, self.strict_loading = adapter_only, not adapter_only
        self.can_cache = self.vlm.fixed_encoder is not None
        #: names of the weights that learn
        self.learning = {name for name, p in self.named_parameters() if p.requires_grad}
        self._warned = False

    def plain_hparams(self) -> None:
        """Make groups of settings among the hyperparameters plain values, which a checkpoint can hold."""
        self.hparams.update({name: _plain(value) for name, value in self.hparams.items()})

    @property
    def vlm(self) -> VLM:
        """The vision-language model."""
        return self.network.vlm

    @property
    def policy(self) -> nn.Module:
        """The model whose weights learn."""
        return self.network.policy

    @property
    def encoder_key(self) -> str:
        """Identifies a pretrained vision encoder, for the feature cache."""
        return self.network.encoder_key

    def encode_frozen(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to what a pretrained vision encoder makes of them, (B, T * D)."""
        move(self.policy, self.device)
        return self.vlm.encode_fixed(one_view(image))

    # ---- learning -----------------------------------------------------------------------------

    def train(self, mode: bool = True) -> ReasonerBase:
        """Training mode for what learns: what is frozen keeps its statistics and drops nothing."""
        super().train(mode)
        encoder = vision_encoder(self.policy)[1]
        if mode and self.tuning.freeze_language:
            freeze_dropout_and_norm(self.policy, but=encoder)
        if self.tuning.freeze_vision:
            encoder.eval()
        return self

    def configure_model(self) -> None:
        """Shard the weights over the processes of a ``ModelParallelStrategy`` (FSDP2); else do nothing."""
        self.shard_over(None)

    def shard_over(self, reference: nn.Module | None) -> None:
        """As :meth:`configure_model`, with another model beside the policy."""
        if self.device_mesh is not None and not is_sharded(self.policy):
            _shard(
                [self.policy] if reference is None else [self.policy, reference],
                self.trainer,
                self.device_mesh,
            )

    def on_fit_start(self) -> None:
        """Training mode: transformers hands its models over in evaluation mode."""
        self.train()

    def batch_seed(self, batch_idx: int) -> int:
        """Of all that is drawn for a batch: a resumed run draws what it would have drawn."""
        return zlib.crc32(f"{self.seed}|{self.current_epoch}|{batch_idx}|{self.global_rank}".encode())

    def ask(self, batch: Batch, seed: int) -> tuple[list[Question], Prompts]:
        """What is asked of a batch, and the same as the model's input."""
        questions = self.tasks.ask(batch, seed)
        asked = [q.asked for q in questions]
        return questions, self.vlm.ask(one_view(batch.get("image", ())), asked, batch.get("features"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Scalar loss of a batch of images: mean negative log-probability of a token of the right completions."""
        seed = self.batch_seed(batch_idx)
        questions, prompts = self.ask(batch, seed)
        ids, mask = self.vlm.write([self.tasks.answer(q) for q in questions], self.tasks.answers != "text")
        longest = int(mask.sum(dim=1).max())
        if longest > self.limit and not self._warned:
            self._warned = True
            warnings.warn(
                f"a completion to imitate has {longest} tokens, and generation stops at {self.limit}: raise "
                "grpo.max_completion_length (RACT: max_completion_length), or the model's answers are cut (this "
                "warning comes once)",
                stacklevel=2,
            )
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)  # of dropout
            logps, _ = completion_logps(self.vlm, self.policy, prompts, ids, mask, with_entropy=False)
        loss = -logps.sum() / mask.sum()
        self.log_step("train/loss", loss, len(questions))
        return loss

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

    def setup(self, stage: str) -> None:
        """Take over the DataModule's view and training sets."""
        super().setup(stage)
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, HalfPrecision):
            # The weights are in half precision. Scores and rewards, which are made beside them, would be too, and
            # processors of images cannot be.
            plugin.forward_context = nullcontext  # type: ignore[method-assign, assignment]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on what learns; the learning rate as ``schedule`` says."""
        learning = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=self.schedule.lr, weight_decay=self.schedule.weight_decay)
        total = self.total_steps * self.updates
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.schedule.factor(step, total)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- evaluation ---------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores and texts of a validation batch."""
        out = self.predict_batch(batch)
        self.evaluation.add(dataloader_idx, batch, out, {"text": out.texts or []})

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores and texts of a test batch."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def validation_metrics(self, frame: pd.DataFrame) -> dict[str, float]:
        """See :func:`text_metrics`."""
        return text_metrics(frame)

    # ---- checkpoints --------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add what a scorer needs beside its weights; leave out what ``vlm`` has."""
        super().on_save_checkpoint(checkpoint)
        if self.adapter_only:
            state = cast("dict[str, Tensor]", checkpoint["state_dict"])
            checkpoint["state_dict"] = {k: v for k, v in state.items() if k in self.learning}

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> object:
        """As torch's, but that nothing beyond the adapter is asked of an adapter's checkpoint."""
        if self.adapter_only:
            return load_adapter(self, self.renamed(state_dict), assign)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


class Reasoner(ReasonerBase):
    """Writes ``<think>…</think><answer>…</answer>`` about an image; the score is read from the answer.

    Args:
        vlm: vision-language model: ``hf:org/repo[@rev]``, ``hf:local-dir:FOLDER`` or ``rali:vlm-tiny``.
        objective: ``sft`` = imitate the descriptions of the data with the MOS behind them; ``grpo`` = sample,
            grade, and reinforce what was better than the image's other samples.
        init_from: another run of the same model whose weights are the start: a checkpoint, a scorer file, or
            the name of a scorer that the package carries. An adapter in it is added to the weights, and
            ``grpo`` measures the KL from there.
        vision_from: likewise; a Regression or RALI whose backbone becomes the vision encoder of
            ``rali:vlm-tiny``, or a Reasoner whose encoder is taken over: a language model learns far faster from
            an encoder that knows quality.
        prompt: name of the question about the score.
        degradation_prompt: name of the question about the degradation; ``null`` leaves that task out.
        degradation_share: probability in [0, 1] that a training image of known degradation is asked about
            that, and not about the score.
        answers: what ``sft`` imitates: the description with the score behind it, or (``text``, RACT's
            labels) up to ``</think>`` and nothing after it, not even an end token, so that a model that can
            rate already goes on to its score as before; such images need no MOS. ``score`` is the score
            behind an empty description.
        tuning: which weights learn.
        schedule: learning rate and optimizer.
        sampling: how completions are drawn for ``grpo``.
        grpo: the loss of ``grpo``; its ``max_completion_length`` is the limit of length everywhere.
        rewards: reward to weight; Q-Insight's if ``null``.
        reward_options: reward to its own options, as ``{score_within: {epsilon: 0.35}}`` ('rali-zoo list
            rewards' shows them; flat ones of 0.1.0 are understood).
        limits: when the run warns of collapse.
        window: completions that are looked at for that.
        scoring: how validation, test and ``score`` make a score of what is written.
        seed: of the samples and of dropout; with epoch, batch and process it makes a resumed run end as an
            undisturbed one does.

    Raises:
        ConfigError: settings that do not fit each other.
        CheckpointError: weights that cannot be read.
    """

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
        reward_options: dict[str, Option | dict[str, Option]] | None = None,
        limits: Limits | None = None,
        window: int = 256,
        scoring: Scoring | None = None,
        seed: int = 0,
    ) -> None:
        drawn, loss = as_settings(Sampling, sampling), as_settings(Objective, grpo)
        if objective == "grpo" and answers != "text-and-score":
            raise ConfigError(
                f"answers={answers} is what objective=sft imitates; leave it out of objective=grpo"
            )
        chosen = RewardSet(rewards, reward_options)
        super().__init__(
            vlm,
            init_from,
            vision_from,
            prompt,
            Tasks(prompt, degradation_prompt, degradation_share, answers),
            as_settings(Tuning, tuning),
            as_settings(Schedule, schedule),
            as_settings(Scoring, scoring),
            loss.max_completion_length,
            drawn.temperature,
            seed,
        )
        self.save_hyperparameters()
        self.plain_hparams()
        self.objective, self.sampling, self.grpo, self.rewards = objective, drawn, loss, chosen
        self.monitor = CollapseMonitor(window, as_settings(Limits, limits))
        #: holds the policy as it is now, which is what the KL is measured from; scoring needs none of it
        self.reinforcement: Reinforcement | None = None
        if (
            objective == "grpo" and not loading_weights()
        ):  # a trained one scores anywhere, whatever it sampled with
            if self.sampling.engine == "vllm":
                from rali_zoo.vlm.generation_vllm import VLLMEngine

                self.network.engine = VLLMEngine(
                    self.vlm, self.sampling.vllm_memory, self.sampling.vllm_length
                )
            self.reinforcement = Reinforcement(
                self.vlm, self.network.engine, self.sampling, self.grpo, self.rewards, self.monitor
            )
            self.updates = self.sampling.updates
        self.automatic_optimization = self.updates == 1

    def train(self, mode: bool = True) -> Reasoner:
        """As the base class; in reinforcement nothing is dropped at all: the policy is the one that was sampled."""
        super().train(mode)
        if self.objective == "grpo":
            freeze_dropout_and_norm(self.policy)
        return self

    def setup(self, stage: str) -> None:
        """Take over the DataModule's view and training sets; refuse rewards that could not work."""
        super().setup(stage)
        if stage != "fit" or self.objective != "grpo":
            return
        for name in ("thurstone_fidelity", "diversity_guard"):
            if name in self.rewards.weights and self.datamodule.batch_size < 2:
                raise ConfigError(f"the reward {name} compares images; set data.batch_size to 2 or more")
        if self.grpo.loss == "dapo" and self.trainer.accumulate_grad_batches > 1:
            raise ConfigError(
                "grpo.loss=dapo divides by all tokens of an update, and they are not known before its last "
                "part; set trainer.accumulate_grad_batches=1, or grpo.loss=bnpo"
            )

    def configure_model(self) -> None:
        """As the base class, with the reference."""
        reference = None if self.reinforcement is None else self.reinforcement.reference
        self.shard_over(None if reference is None else reference.copy)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Scalar loss of a batch of images; ``None`` where several updates were made here."""
        if self.objective == "sft":
            return super().training_step(batch, batch_idx)
        if self.reinforcement is None:
            raise ConfigError("a model that was loaded for scoring cannot be reinforced; use init_from")
        seed = self.batch_seed(batch_idx)
        rollout = self.reinforcement.roll_out(*self.ask(batch, seed), seed)
        items = None
        if self.grpo.loss == "dapo":
            tokens = rollout.completions.mask.sum().float()
            items = cast(Tensor, self.trainer.strategy.reduce(tokens, reduce_op="mean"))
        if self.automatic_optimization:
            return self._update(self.reinforcement, rollout, items, first=True).loss
        self._several_updates(self.reinforcement, rollout, items)
        return None

    def _update(self, loop: Reinforcement, rollout: Rollout, items: Tensor | None, first: bool) -> PolicyLoss:
        """The loss of one update, logged; what was sampled is logged with the first one."""
        loss, entropy = loop.loss(rollout, items)
        names = loss._fields[1:] if loop.reference is not None else ("clip_low", "clip_high", "ratio")
        values = {f"policy/{name}": getattr(loss, name) for name in names}
        if first:
            values |= loop.watch(rollout, entropy)
        for name, value in values.items():
            self.log_step(name, value, 1, bar=False)
        self.log_step("train/loss", loss.loss.detach(), 1)
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


def text_metrics(frame: pd.DataFrame) -> dict[str, float]:
    """What validation looks at.

    Args:
        frame: columns mos, score, error and text.

    Returns:
        ``srcc`` and ``plcc`` of the parseable answers, shares ``failed`` and ``distinct_texts`` in [0, 1],
        and ``text_only_srcc`` (see :func:`rali_zoo.rl.monitor.text_only_srcc`); NaN where not defined.
    """
    nan = float("nan")
    rated = frame[frame["mos"].notna()]
    alone = None
    if len(rated) >= _TEXT_FOLDS:
        alone = text_only_srcc(rated["text"].tolist(), rated["mos"].tolist(), folds=_TEXT_FOLDS)
    return {
        **agreement(frame),
        "failed": float((frame["error"] != "").sum()) / max(len(frame), 1),
        "distinct_texts": nan if alone is None else alone.distinct / alone.n,
        "text_only_srcc": nan if alone is None else alone.srcc,
    }


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


def _shard(models: list[nn.Module], trainer: Trainer, mesh: DeviceMesh) -> None:
    """Shard models over the processes of Lightning's ``ModelParallelStrategy``.

    Weights are gathered in bfloat16 where ``trainer.precision`` is ``bf16-mixed``; their slices stay float32.
    A run is to be resumed under the strategy that it began with: where some weights are frozen, Lightning 2.6
    gives the moments of an optimizer that was not sharded to the wrong weights.

    Args:
        models: the policy, with its adapter if it has one, and its reference.
        trainer: whose strategy and precision count.
        mesh: of the strategy, with dimensions ``data_parallel`` and ``tensor_parallel``.

    Raises:
        ConfigError: a strategy that splits layers too, or that writes checkpoints nothing else can read.
    """
    settings = "trainer.strategy.init_args"
    if mesh["tensor_parallel"].size() > 1:
        raise ConfigError(
            f"no layer of a Reasoner is split; set {settings}.tensor_parallel_size=1 and "
            f"{settings}.data_parallel_size={mesh.size()}"
        )
    if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
        raise ConfigError(
            "test, score and describe read checkpoints of one file; set "
            f"{settings}.save_distributed_checkpoint=false"
        )
    for model in models:
        shard(model, mesh["data_parallel"], half=trainer.precision == "bf16-mixed")
