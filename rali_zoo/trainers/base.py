"""What the modules we train share: evaluation and checkpoints, and for most of them a backbone by URI."""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import lightning as L
import torch
from torch import Tensor, nn

from rali_zoo.backbones import create_backbone
from rali_zoo.backbones.weights import weights_hash
from rali_zoo.data.transforms import View
from rali_zoo.errors import ConfigError
from rali_zoo.trainers.evaluation import Evaluation
from rali_zoo.types import Batch, Preprocess
from rali_zoo.uri import without_option

if TYPE_CHECKING:
    from rali_zoo.data.datamodule import IQADataModule

_weights_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """While it lasts, modules are built without their pretrained weights: a checkpoint follows."""
    token = _weights_follow.set(True)
    try:
        yield
    finally:
        _weights_follow.reset(token)


def loading_weights() -> bool:
    """Whether the module under construction gets its weights from a checkpoint right after."""
    return _weights_follow.get()


class Prediction(NamedTuple):
    """What a module says of a batch.

    Attributes:
        score: (B,) in [1, 5]; NaN while the module has no scores yet.
        std: (B,) on the same scale, or ``None``.
        weights: (B, K) over prototypes, or ``None``.
    """

    score: Tensor
    std: Tensor | None = None
    weights: Tensor | None = None


class Neck(nn.Module):
    """Features to an embedding: standardise, then nothing, a linear map, or a perceptron.

    Args:
        kind: ``none`` (the features as they are), ``linear``, or ``mlp`` (one hidden layer, GELU).
        dim: width D of the features.
        out: width of the embedding; ignored by ``none``.
        hidden: width of the hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
    """

    def __init__(self, kind: str, dim: int, out: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim if kind == "none" else out
        self.layers = nn.Sequential()
        if kind == "none":
            return
        # Pooled maps of different stages differ in size by orders of magnitude.
        self.layers.append(nn.BatchNorm1d(dim, affine=False))
        self.layers.append(nn.Dropout(dropout))
        if kind == "mlp":
            self.layers.extend([nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout)])
        self.layers.append(nn.Linear(hidden if kind == "mlp" else dim, out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) features to (B, out)."""
        return cast(Tensor, self.layers(x))


class IQAModule(L.LightningModule):
    """Whatever turns images into scores: evaluation, Lightning's hooks, checkpoints.

    A module on an image encoder derives from :class:`BackboneModule`. This class asks for :attr:`preprocess`,
    :meth:`predict_batch`, and what every LightningModule has: ``training_step``, ``configure_optimizers``.
    """

    #: whether the images' features stay as they are in training, so that the DataModule can cache them
    encoder_is_frozen: bool = False

    def __init__(self) -> None:
        super().__init__()
        #: how images are cut for evaluation and scoring; taken from the DataModule, kept in checkpoints
        self.view = View()
        #: references this module was trained on, for leakage checks
        self.training_sets: tuple[str, ...] = ()
        self.evaluation = Evaluation(self)

    # ---- what a subclass defines --------------------------------------------------------------

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """What the module expects of an image."""

    @abstractmethod
    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch of images."""

    def reasons(self, weights: Tensor, k: int = 3) -> list[tuple[float, float, tuple[str, ...]]]:
        """The ``k`` prototypes that carry most of an image's score; none for modules without them.

        Args:
            weights: (K,) of the image, see :class:`Prediction`.
            k: how many.
        """
        return []

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] to (B,) scores in [1, 5]; differentiable on a backbone."""
        return self.predict_batch(Batch(image=image)).score

    # ---- Lightning ----------------------------------------------------------------------------

    @property
    def datamodule(self) -> IQADataModule:
        """The DataModule of the running trainer."""
        return cast("IQADataModule", self.trainer.datamodule)  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Take over the DataModule's view and training sets, which are part of the scorer."""
        data = self.datamodule
        if stage == "fit" and data is not None:
            self.view = data.eval_view
            self.training_sets = tuple(data.train_refs)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores of a validation batch."""
        self.evaluation.add(dataloader_idx, batch, self.predict_batch(batch))

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect scores of a test batch."""
        self.evaluation.add(dataloader_idx, batch, self.predict_batch(batch))

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Scores of a batch with the images they belong to: keys dataset, id, score, std."""
        out = self.predict_batch(batch)
        return {"dataset": batch["dataset"], "id": batch["id"], "score": out.score, "std": out.std}

    def on_validation_epoch_start(self) -> None:
        """Forget what was collected before."""
        self.evaluation.clear()

    def on_test_epoch_start(self) -> None:
        """Forget what was collected before."""
        self.evaluation.clear()

    def on_validation_epoch_end(self) -> None:
        """Log ``val/srcc`` and ``val/plcc``, means over the data sets, and each set's own."""
        self.evaluation.log_validation(self.datamodule.val_refs)

    def on_test_epoch_end(self) -> None:
        """Log every metric of every test set; the images' scores stay in ``test_tables``."""
        self.evaluation.log_test(self.datamodule.test_refs)

    @property
    def test_tables(self) -> dict[str, Any]:
        """Data frames with id, mos, score, std, error by test reference, after a test run."""
        return self.evaluation.tables

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run; raises :class:`ConfigError` for a stream without an end."""
        if self.datamodule.streams and self.trainer.max_steps < 0:
            raise ConfigError("a stream has no length to plan by: give --trainer.max_steps=N")
        return int(self.trainer.estimated_stepping_batches)

    def warmup_cosine(self, step: int, total: int, warmup: float = 0.05) -> float:
        """Factor of the learning rate at a step of ``total``: linear warm-up, then half a cosine."""
        ramp = max(1, int(total * warmup))
        if step < ramp:
            return (step + 1) / ramp
        progress = min(1.0, (step - ramp) / max(1, total - ramp))
        return 0.5 * (1 + math.cos(math.pi * progress))

    # ---- checkpoints --------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """What a scorer needs beside its weights; plain values only."""
        return {
            "class": type(self).__name__,
            "view": asdict(self.view),
            "training_sets": list(self.training_sets),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Undo :meth:`extra_state`."""
        self.view = View(**state["view"])
        self.training_sets = tuple(state["training_sets"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a scorer needs beside its weights."""
        checkpoint["rali_zoo"] = self.extra_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read it back."""
        if "rali_zoo" in checkpoint:
            self.load_extra_state(checkpoint["rali_zoo"])

    @property
    def revision(self) -> str:
        """Hash of all weights (:func:`~rali_zoo.backbones.weights.weights_hash`)."""
        return weights_hash(self)


class BackboneModule(IQAModule):
    """Base of modules whose head reads the features of an image encoder.

    Args:
        backbone: image encoder by URI, e.g. ``rali:tiny`` or ``timm:resnet18``.
        encoder_lr: learning rate of the backbone; 0 freezes it, so that its features can be cached.
    """

    def __init__(self, backbone: str, encoder_lr: float) -> None:
        super().__init__()
        if loading_weights():  # the file the weights once came from may be gone, and is not needed
            backbone = without_option(backbone, "checkpoint")
        self.backbone = create_backbone(backbone, pretrained=not loading_weights())
        self.encoder_is_frozen = encoder_lr == 0
        if self.encoder_is_frozen:
            self.backbone.requires_grad_(False)

    @abstractmethod
    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features of one view to scores."""

    @property
    def preprocess(self) -> Preprocess:
        """What the backbone expects of an image."""
        return self.backbone.preprocess

    @property
    def encoder_key(self) -> str:
        """Identifies the backbone and the weights it has now, for the feature cache."""
        return f"{without_option(self.backbone.uri, 'checkpoint')}|{weights_hash(self.backbone)}"

    def train(self, mode: bool = True) -> BackboneModule:
        """Training mode for all but a frozen backbone, whose normalisation statistics must not move."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.backbone.eval()
        return self

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) or (B, V, 3, H, W) images in [0, 1] to pooled features (B, D) or (B, V, D)."""
        if image.ndim == 4:
            return self.backbone(image).pooled
        return self.backbone(image.flatten(0, 1)).pooled.unflatten(0, image.shape[:2])

    @torch.inference_mode()
    def encode_frozen(self, image: Tensor) -> Tensor:
        """:meth:`encode`, of the same shapes, for the feature cache: evaluation mode, no gradients."""
        self.backbone.eval()
        return self.encode(image.to(self.device))

    def features(self, batch: Batch) -> Tensor:
        """(B, V, D) features of a batch, cached or computed; V is 1 for a single view."""
        features = batch["features"] if "features" in batch else self.encode(batch["image"])
        return features if features.ndim == 3 else features[:, None]

    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch; those of several views are averaged, and their variances too."""
        features = self.features(batch)
        b, v = features.shape[:2]
        out = self.predict_features(features.flatten(0, 1))
        score = out.score.view(b, v)
        std = None
        if out.std is not None:  # law of total variance over the views
            std = (out.std.view(b, v).square().mean(1) + score.var(1, correction=0)).sqrt()
        weights = None if out.weights is None else out.weights.view(b, v, -1).mean(1)
        return Prediction(score.mean(1), std, weights)
