"""What trains a network: LightningModules that hold one. Evaluation, schedules and checkpoints are here."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, distributed, nn

from rali_zoo.backbones.weights import weights_hash
from rali_zoo.errors import ConfigError
from rali_zoo.metrics.evaluation import evaluate
from rali_zoo.models.base import BackboneNetwork, IQANetwork, Prediction, Standardise
from rali_zoo.models.files import PREFIX, describe, load_checkpoint
from rali_zoo.protocols import TrainingData
from rali_zoo.trainers.evaluation import NO_SCORE, Evaluation, agreement
from rali_zoo.trainers.losses import RegressionLoss, rank_loss, score_loss
from rali_zoo.types import Batch, Predicted, Preprocess
from rali_zoo.uri import without_option

if TYPE_CHECKING:
    import pandas as pd
    from lightning import Trainer
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from rali_zoo.views import View


def move(module: nn.Module, where: torch.device | torch.dtype) -> None:
    """Move weights that will learn, also from within inference mode, whose tensors cannot.

    When data are set up, Lightning has chosen the device, and moves the weights there later.
    """
    with torch.inference_mode(False):
        module.to(where)


class IQAModule(L.LightningModule):
    """Trains and evaluates a network; defines no training of its own.

    A trainer of a network on an image encoder derives from :class:`BackboneModule`.

    Args:
        network: what scores; a scorer file holds this and nothing else.
    """

    #: whether what the backbone, or its first stages, make of an image stays as it is, and can be cached
    can_cache: bool = False
    #: whether it learns from images whose order alone is known (``data.ranks``)
    learns_ranks: bool = False
    #: the error of an image for which the network has no finite score
    no_score: str = NO_SCORE

    def __init__(self, network: IQANetwork) -> None:
        super().__init__()
        self.network = network
        self.evaluation = Evaluation(self)

    @property
    def preprocess(self) -> Preprocess:
        """What the network expects of an image."""
        return self.network.preprocess

    @property
    def view(self) -> View:
        """How the network's images are cut for evaluation and scoring."""
        return self.network.view

    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch of images."""
        return self.network.predict_batch(batch)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] to (B,) scores in [1, 5]."""
        return cast(Tensor, self.network(image))

    # ---- Lightning ----------------------------------------------------------------------------

    @property
    def datamodule(self) -> TrainingData:
        """The DataModule of the running trainer."""
        return cast(TrainingData, self.trainer.datamodule)  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Take over the DataModule's view and training sets, which are part of the scorer."""
        exact_labels(self.trainer.precision_plugin)
        data = self.datamodule
        if stage == "fit" and data is not None:
            self.network.view = data.eval_view
            self.network.training_sets = (*data.train_refs, *data.rank_refs)
            self.network.smallest = data.smallest

    def log_step(self, name: str, value: Tensor | float, size: int, bar: bool = True) -> None:
        """Log a number of a training step, where anything reads it.

        A logger reads one step in ``log_every_n_steps``; to log takes Lightning a tenth of the step of a small head.

        Args:
            name: as ``train/loss``.
            value: a scalar.
            size: of the batch.
            bar: whether a progress bar shows it.
        """
        if self._trainer is None or self._is_read(self._trainer, name, bar):
            self.log(name, value, prog_bar=bar, batch_size=size)

    def _is_read(self, trainer: Trainer, name: str, bar: bool) -> bool:
        """Whether a logger, a bar or a callback looks at a number of this step, or whether code of others may."""
        callbacks: list[object] = [self, *trainer.callbacks]  # type: ignore[attr-defined]
        return bool(
            trainer._logger_connector.should_update_logs
            or trainer.fast_dev_run  # type: ignore[attr-defined]
            or trainer.is_last_batch
            or (bar and trainer.progress_bar_callback is not None)
            or any(getattr(one, "monitor", None) == name for one in callbacks)
            or any(
                type(one).__module__.partition(".")[0] not in ("lightning", "rali_zoo") for one in callbacks
            )
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The tensors of a batch, of any shape, on a device; Lightning's own looks at every string too."""
        moved = {
            name: value.to(device, non_blocking=True)
            if isinstance(value, Tensor)
            else [v.to(device, non_blocking=True) for v in cast("list[Tensor]", value)]
            if name == "image"  # images whose sizes differ
            else value
            for name, value in batch.items()
        }
        return cast(Batch, moved)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores of a validation batch."""
        self.evaluation.add(dataloader_idx, batch, self.predict_batch(batch))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores of a test batch."""
        self.evaluation.add(dataloader_idx, batch, self.predict_batch(batch))

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Predicted:
        """Scores of a batch with the images they belong to."""
        out = self.predict_batch(batch)
        return {"dataset": batch["dataset"], "id": batch["id"], "score": out.score, "std": out.std}

    def on_validation_epoch_start(self) -> None:
        """Forget what was collected before; the statistics of batches are the first process's everywhere."""
        self.evaluation.clear()
        broadcast(self.buffers())

    def on_train_end(self) -> None:
        """All processes end with the same network."""
        broadcast(self.buffers())

    def on_test_epoch_start(self) -> None:
        """Forget what was collected before."""
        self.evaluation.clear()

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of every validation set, and their means as ``val/<metric>``."""
        self.evaluation.log_validation(self.datamodule.val_refs)

    def on_test_epoch_end(self) -> None:
        """Log every metric of every test set; the images' scores stay in ``test_tables``."""
        self.evaluation.log_test(self.datamodule.test_refs)

    def validation_metrics(self, frame: pd.DataFrame) -> dict[str, float]:
        """What validation logs of a data set, of :meth:`Evaluation.frame`."""
        return agreement(frame)

    def test_metrics(self, frame: pd.DataFrame) -> dict[str, float]:
        """What a test logs of a data set, of :meth:`Evaluation.frame`."""
        return evaluate(frame)

    @property
    def test_tables(self) -> dict[str, pd.DataFrame]:
        """Data frames with id, mos, score, std, error by test reference, after a test run."""
        return self.evaluation.tables

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run; raises :class:`ConfigError` for a stream without an end."""
        if self.datamodule.streams and self.trainer.max_steps < 0:
            raise ConfigError("a stream has no length to plan by: give --trainer.max_steps=N")
        return int(self.trainer.estimated_stepping_batches)

    # ---- checkpoints --------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add what a scorer needs beside its weights."""
        checkpoint["rali_zoo"] = {"network": describe(self.network)}
        kept = checkpoint.get("hyper_parameters")
        # one given as it is: a file holds its reference
        if isinstance(kept, dict) and isinstance(kept.get("backbone"), nn.Module):
            kept["backbone"] = self.network.settings["backbone"]

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Read it back."""
        saved = checkpoint.get("rali_zoo")
        if isinstance(saved, dict):
            self.network.load_extra_state(saved["network"]["extra"] if "network" in saved else saved)

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> object:
        """As torch's; takes the names of 0.1.0 too, when the trainer was the network."""
        return super().load_state_dict(self.renamed(state_dict), strict=strict, assign=assign)

    def renamed(self, state: Mapping[str, object]) -> dict[str, object]:
        """A state dict of 0.1.0 under the names that weights have now; one of today as it is."""
        if any(name.startswith(PREFIX) for name in state):
            return dict(state)
        inside = self.network.state_dict()
        return {(PREFIX + name if name in inside else name): value for name, value in state.items()}


class BackboneModule(IQAModule):
    """Trains a network on an image encoder: an error of the score, AdamW, warm-up and cosine.

    A subclass of a few lines is a whole trainer; what it leaves alone is as in
    :class:`~rali_zoo.trainers.Regression`.

    Args:
        network: what scores.
        lr: learning rate of all but the backbone.
        encoder_lr: learning rate of the backbone; 0 freezes it, so that its features can be cached.
        weight_decay: of AdamW.
        loss: pointwise loss on the MOS scale.
        plcc_weight: weight of the PLCC loss inside each data set of a batch.
        fidelity_weight: weight of the Thurstone fidelity ranking loss inside each data set of a batch.
        rank_weight: weight of the loss of images whose order is known (``data.ranks``).
        frozen_stages: of a backbone that is trained, how many of its first stages stay as they are; what they make
            of an image is cached. The statistics of its normalisation layers stay, too.
        window: share in (0, 1] of the height and width of the map behind the frozen stages that a training step
            sees, at a random place and mirrored at random; 1 = all of it, as it is.

    Raises:
        ConfigError: a rate or weight that is negative or not finite, or stages that cannot be frozen.
    """

    network: BackboneNetwork
    learns_ranks = True
    #: whether the statistics of features are those of the scorer that training started from
    keeps_statistics = False

    def __init__(
        self,
        network: BackboneNetwork,
        lr: float = 1e-3,
        encoder_lr: float = 0.0,
        weight_decay: float = 0.05,
        loss: RegressionLoss = "mse",
        plcc_weight: float = 0.0,
        fidelity_weight: float = 0.0,
        rank_weight: float = 0.1,
        frozen_stages: int = 0,
        window: float = 1.0,
    ) -> None:
        check_settings(locals())
        super().__init__(network)
        self.lr, self.encoder_lr, self.weight_decay = lr, encoder_lr, weight_decay
        self.loss, self.plcc_weight, self.fidelity_weight = loss, plcc_weight, fidelity_weight
        self.rank_weight = rank_weight
        self.encoder_is_frozen = encoder_lr == 0
        self.frozen_stages = 0 if self.encoder_is_frozen else frozen_stages
        self.can_cache = self.encoder_is_frozen or self.frozen_stages > 0
        if not 0 < window <= 1:
            raise ConfigError(f"model.window={window!r}: a share of the map above 0, at most 1")
        for part in self._fixed_parts():
            part.requires_grad_(False)
        network.frozen_stages, network.window = self.frozen_stages, window
        self._still()

    def start_from(self, scorer: str) -> None:
        """Take the weights of a trained scorer, and keep its statistics of features.

        Those are of thousands of images; a few hundred of one's own would only make them noisier.

        Args:
            scorer: name of a scorer that the package carries, a scorer file (.safetensors), or a checkpoint.

        Raises:
            ConfigError: another backbone or head.
            CheckpointError: no such file.
        """
        other = load_checkpoint(scorer)
        try:
            self.network.load_state_dict(other.state_dict())
        except RuntimeError as error:
            raise ConfigError(
                f"model.init_from={scorer!r} is a {type(other).__name__} with the settings {other.settings}; this "
                f"model has {self.network.settings}: {error}"
            ) from None
        self.keeps_statistics = True
        self._still()

    def _fixed_parts(self) -> list[nn.Module]:
        """Parts of the backbone whose weights stay."""
        if self.encoder_is_frozen:
            return [self.backbone]
        return self.network.backbone.first_parts(self.frozen_stages) if self.frozen_stages else []

    def _still(self) -> None:
        """Evaluation mode for whatever has statistics that must not move: those of a backbone that is frozen, if only
        in part, and of features that were trained on many more images."""
        if self.can_cache:
            self.backbone.eval()
        if self.keeps_statistics:
            for module in self.network.modules():
                if isinstance(module, Standardise):
                    module.eval()

    @property
    def backbone(self) -> nn.Module:
        """The image encoder."""
        return self.network.backbone

    @property
    def encoder_key(self) -> str:
        """Identifies the backbone and the weights it has now, for the feature cache."""
        backbone = self.network.backbone
        reference = without_option(without_option(backbone.uri, "checkpoint"), "weights")
        if self.frozen_stages:
            return f"{reference}|{self.frozen_stages}|{weights_hash(nn.ModuleList(self._fixed_parts()))}"
        return f"{reference}|{backbone.weights_hash()}"

    def train(self, mode: bool = True) -> BackboneModule:
        """Training mode for all but a frozen backbone, whose normalisation statistics must not move."""
        super().train(mode)
        self._still()
        return self

    def on_train_epoch_start(self) -> None:
        """Whatever mode a part came in, a frozen backbone is in evaluation mode."""
        self._still()

    @torch.inference_mode()
    def encode_frozen(self, image: Tensor) -> Tensor:
        """Features for the cache, in evaluation mode, without gradients.

        Args:
            image: (B, 3, H, W) or (B, V, 3, H, W) in [0, 1].

        Returns:
            (B, D) or (B, V, D); where only the first stages are frozen, D is the length of what they make.
        """
        move(self.backbone.eval(), self.device)
        image = image.to(self.device)
        if not self.frozen_stages:
            return self.network.encode(image)
        made = self.network.backbone.first(image.flatten(0, -4), self.frozen_stages)
        return made.unflatten(0, image.shape[:-3])

    def score_loss(self, score: Tensor, batch: Batch) -> Tensor:
        """Scalar loss of (B,) scores against the MOS of a batch."""
        weights = (1.0, self.plcc_weight, self.fidelity_weight)
        return score_loss(score, batch["mos"], batch["std"], batch["dataset"], self.loss, weights)

    def rank_loss(self, ranked: Batch | None) -> Tensor | float:
        """Weighted scalar loss of the chains of a batch; 0 where it has none.

        Degraded images are unlike those with a MOS: they are seen through the running statistics of the
        normalisation layers, which they do not move.
        """
        if ranked is None:
            return 0.0
        with running_statistics(self.network):
            score = self.unbounded_score(ranked)
        value = rank_loss(score, ranked["chain"])
        self.log_step("train/rank_loss", value, len(score), bar=False)
        return self.rank_weight * value

    def unbounded_score(self, batch: Batch) -> Tensor:
        """(B,) scores as losses see them; a network that clamps its scores gives them as they were before."""
        return self.predict_batch(batch).score

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Scalar loss of a batch of images with a MOS, and of the chains that follow them."""
        batch, ranked = split_chains(batch)
        value = self.score_loss(self.predict_batch(batch).score, batch) + self.rank_loss(ranked)
        self.log_step("train/loss", value, len(batch["id"]))
        return value

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a learning rate for the backbone and one for the rest; warm-up, then cosine."""
        encoder = set(self.backbone.parameters())
        groups = [{"params": [p for p in self.parameters() if p not in encoder], "lr": self.lr}]
        if not self.encoder_is_frozen:
            trained = [p for p in self.backbone.parameters() if p.requires_grad]
            groups.append({"params": trained, "lr": self.encoder_lr})
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        total = self.total_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def split_chains(batch: Batch) -> tuple[Batch, Batch | None]:
    """The images with a MOS and, where there are any, those of chains, which follow them in a batch."""
    if "chain" not in batch:
        return batch, None
    rated = int((batch["chain"] < 0).sum())
    first = {k: v[:rated] for k, v in batch.items()}  # type: ignore[index]
    rest = {k: v[rated:] for k, v in batch.items()}  # type: ignore[index]
    return cast(Batch, first), cast(Batch, rest) if rest["chain"].numel() else None


@contextlib.contextmanager
def running_statistics(network: nn.Module) -> Iterator[None]:
    """While it lasts, normalisation layers use their running statistics and leave them as they are."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def exact_labels(plugin: Precision) -> None:
    """Let a precision such as ``bf16-true`` round images and features of a batch, and not their labels."""
    convert = plugin.convert_input
    if getattr(convert, "keeps_labels", False):
        return

    def convert_input(data: Any) -> Any:
        labels = {k: data[k] for k in ("mos", "std") if k in data} if isinstance(data, dict) else {}
        return {**convert(data), **labels} if labels else convert(data)

    convert_input.keeps_labels = True  # type: ignore[attr-defined]
    plugin.convert_input = convert_input  # type: ignore[method-assign]


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values of some tensors, of any shape; alone it does nothing."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.data, src=0)


def warmup_cosine(step: int, total: int, warmup: float = 0.05) -> float:
    """Factor of the learning rate at a step of ``total``: linear warm-up, then half a cosine."""
    ramp = max(1, int(total * warmup))
    if step < ramp:
        return (step + 1) / ramp
    progress = min(1.0, (step - ramp) / max(1, total - ramp))
    return 0.5 * (1 + math.cos(math.pi * progress))


#: ends of names of settings, with the least value and whether it is itself allowed
_LEAST = (
    (("temperature",), 0.0, False),
    (("lr", "weight_decay", "_weight", "beta", "epochs", "sigma"), 0.0, True),
    (("hidden", "buckets", "prototypes", "kept", "_dim"), 1.0, True),
)


def check_settings(given: Mapping[str, object]) -> None:
    """Refuse impossible rates, weights, sizes and temperatures before anything is built.

    Args:
        given: arguments of a trainer; those that are no numbers are not looked at.

    Raises:
        ConfigError: names the first one that is too small, too large, or not finite.
    """
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name == "dropout" and not 0 <= value < 1:
            raise ConfigError(f"model.dropout={value!r} must be in [0, 1)")
        for ends, least, allowed in _LEAST:
            fits = math.isfinite(value) and (value > least or (allowed and value == least))
            if name.endswith(ends) and not fits:
                bound = "at least" if allowed else "above"
                raise ConfigError(f"model.{name}={value!r} must be a finite number, {bound} {least:g}")
