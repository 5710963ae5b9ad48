"""Networks: what turns images into scores. Plain torch modules, without anything that trains them."""

from __future__ import annotations

import contextlib
import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.backbones import create_backbone
from rali_zoo.backbones.base import Backbone
from rali_zoo.backbones.weights import weights_hash
from rali_zoo.errors import ConfigError
from rali_zoo.types import Batch, Explanation, Preprocess
from rali_zoo.uri import without_option
from rali_zoo.views import View

_weights_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """While it lasts, networks are built without their pretrained weights: a file with all weights follows."""
    token = _weights_follow.set(True)
    try:
        yield
    finally:
        _weights_follow.reset(token)


def loading_weights() -> bool:
    """Whether the network under construction gets its weights from a file right after."""
    return _weights_follow.get()


class Prediction(NamedTuple):
    """What a network gives for a batch.

    Attributes:
        score: (B,) in [1, 5]; NaN where the network has no score.
        std: (B,) on the same scale, or ``None``.
        weights: (B, K) over prototypes, or ``None``.
        texts: B, what a vision-language model wrote, or ``None``.
    """

    score: Tensor
    std: Tensor | None = None
    weights: Tensor | None = None
    texts: list[str] | None = None


class Standardise(nn.BatchNorm1d):
    """Batch normalisation without weights that takes a batch of one too, as the last of an epoch may be.

    A single row has no deviation: it moves the running statistics (an exponentially weighted mean and variance)
    and is then standardised by them.

    Args:
        dim: width D.
        limit: standard deviations at which the result is cut; 0 leaves it.
    """

    def __init__(self, dim: int, limit: float = 0.0) -> None:
        super().__init__(dim, affine=False)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        x = self._standardised(x)
        return x.clamp(-self.limit, self.limit) if self.limit else x

    def _standardised(self, x: Tensor) -> Tensor:
        if not self.training or len(x) > 1:
            return super().forward(x)
        mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        momentum = cast(float, self.momentum)
        with torch.no_grad():
            away = x[0].to(mean.dtype) - mean
            mean.add_(momentum * away)
            variance.mul_(1 - momentum).add_(momentum * (1 - momentum) * away.square())
            cast(Tensor, self.num_batches_tracked).add_(1)
        return F.batch_norm(x, mean, variance, eps=self.eps)


class Neck(nn.Module):
    """Features to an embedding: standardise, then nothing, a linear map, or a perceptron.

    Args:
        kind: ``none`` (the features as they are), ``linear``, or ``mlp`` (one hidden layer, GELU).
        dim: width D of the features.
        out: width of the embedding; ignored by ``none``.
        hidden: width of the hidden layer.
        dropout: share in [0, 1) of inputs and hidden units dropped while training.
        limit: standard deviations at which standardised features are cut, as an image unlike all that was trained
            on has some far away; 0 leaves them.
    """

    def __init__(
        self,
        kind: Literal["none", "linear", "mlp"],
        dim: int,
        out: int,
        hidden: int,
        dropout: float,
        limit: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim if kind == "none" else out
        self.layers = nn.Sequential()
        if kind == "none":
            return
        # Pooled maps of different stages differ in size by orders of magnitude.
        self.layers.append(Standardise(dim, limit))
        self.layers.append(nn.Dropout(dropout))
        if kind == "mlp":
            self.layers.extend([nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout)])
        self.layers.append(nn.Linear(hidden if kind == "mlp" else dim, out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) features to (B, out)."""
        return cast(Tensor, self.layers(x))


class IQANetwork(nn.Module):
    """Whatever turns images into scores. One on an image encoder derives from :class:`BackboneNetwork`.

    A subclass defines :attr:`preprocess` and :meth:`predict_batch`. The arguments of its constructor are kept as
    :attr:`settings`, so that a file can hold the network: they must be plain values.
    """

    #: beginnings of names of weights that files of 0.1.0 hold and scoring does not need
    only_trained: ClassVar[tuple[str, ...]] = ()
    #: names of buffers in which infinity is a value
    infinite: ClassVar[tuple[str, ...]] = ()
    #: arguments that the network was built with
    settings: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> IQANetwork:  # noqa: D102 (torch's, but for the settings)
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        self.settings = dict(list(bound.arguments.items())[1:])
        return self

    def __init__(self) -> None:
        super().__init__()
        #: how images are cut for evaluation and scoring
        self.view = View()
        #: references the network was trained on, for leakage checks
        self.training_sets: tuple[str, ...] = ()
        #: shorter side in pixels of the smallest images it was trained on; 0 where that is not known
        self.smallest = 0

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """What the network expects of an image."""

    @abstractmethod
    def predict_batch(self, batch: Batch) -> Prediction:
        """Scores of a batch of images."""

    def explain(self, weights: Tensor, k: int = 3) -> list[Explanation]:
        """The ``k`` prototypes that carry most of each image's score; none for networks without them.

        Args:
            weights: (B, K) of the images, see :class:`Prediction`.
            k: how many.
        """
        return [()] * len(weights)

    def check_complete(self, name: str) -> None:
        """Refuse to score before training has made all that a score needs.

        Args:
            name: what the network was loaded from, for the message.

        Raises:
            CheckpointError: something is missing.
        """

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in [0, 1] to (B,) scores in [1, 5]; differentiable on a backbone."""
        return self.predict_batch(Batch(image=image)).score

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensors = [*self.parameters(), *self.buffers()]
        return tensors[0].device if tensors else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next((p.dtype for p in self.parameters()), torch.float32)

    # ---- files --------------------------------------------------------------------------------

    @classmethod
    def upgrade(cls, hparams: Mapping[str, object]) -> dict[str, object]:
        """Settings of the network in the hyperparameters of a training that 0.1.0 saved."""
        return {k: hparams[k] for k in inspect.signature(cls.__init__).parameters if k in hparams}

    def recipe(self) -> dict[str, object] | None:
        """What else a file must hold to build the network without a hub or a folder; plain values."""
        return None

    def extra_state(self) -> dict[str, object]:
        """What a score needs beside settings and weights; plain values only."""
        known = {"smallest": self.smallest} if self.smallest else {}
        return {"view": asdict(self.view), "training_sets": list(self.training_sets), **known}

    def load_extra_state(self, state: dict[str, object]) -> None:
        """Undo :meth:`extra_state`; raises :class:`ConfigError` for another form, or unstated training sets."""
        view, sets = state["view"], state.get("training_sets")
        if not isinstance(sets, list | tuple):
            raise ConfigError(
                "it does not state what it was trained on (training_sets), so that nobody could tell whether it has "
                "seen the images it is tested on; convert it again from its checkpoint"
            )
        if not isinstance(view, dict):
            raise ConfigError(f"a view is a mapping, not {view!r}")
        self.view = View.from_state(view)
        self.training_sets = tuple(map(str, sets))
        smallest = state.get("smallest", 0)
        if not isinstance(smallest, int) or smallest < 0:
            raise ConfigError(f"smallest is a number of pixels, not {smallest!r}")
        self.smallest = smallest

    @property
    def revision(self) -> str:
        """Hash of all weights (:func:`~rali_zoo.backbones.weights.weights_hash`)."""
        return weights_hash(self)


class BackboneNetwork(IQANetwork):
    """Base of networks whose head reads the features of an image encoder; defines :meth:`predict_features`.

    Args:
        backbone: image encoder by URI, e.g. ``rali:tiny`` or ``timm:resnet18``; or an encoder, which a file then
            names by its ``uri``.
    """

    def __init__(self, backbone: str | Backbone) -> None:
        super().__init__()
        if isinstance(backbone, Backbone):
            self.settings["backbone"] = backbone.uri
            self.backbone = backbone
            return
        if loading_weights():  # the file the weights once came from may be gone, and is not needed
            backbone = without_option(backbone, "checkpoint")
        self.backbone = create_backbone(backbone, pretrained=not loading_weights())

    #: while training: of how many first stages of the backbone a batch's ``features`` are, 0 of all
    frozen_stages = 0
    #: while training: share of the height and width of the map behind them that a step sees
    window = 1.0

    @abstractmethod
    def predict_features(self, features: Tensor) -> Prediction:
        """(B, D) features of one view to scores."""

    @property
    def preprocess(self) -> Preprocess:
        """What the backbone expects of an image."""
        return self.backbone.preprocess

    def recipe(self) -> dict[str, object] | None:
        """The backbone's, if it has one."""
        return self.backbone.recipe()

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) or (B, V, 3, H, W) images in [0, 1] to pooled features (B, D) or (B, V, D).

        Raises:
            ConfigError: a list of images, whose sizes differ.
        """
        if isinstance(image, list):
            sizes = sorted({f"{i.shape[-1]}x{i.shape[-2]}" for i in image})
            raise ConfigError(
                f"images of {', '.join(sizes[:4])} in one batch, which {self.backbone.uri} takes as they are: give "
                "data.train_view and data.eval_view a kind and a size (--data.train_view.kind=whole "
                "--data.train_view.size=224), or data.batch_size=1"
            )
        if image.ndim == 4:
            return self.backbone(image).pooled
        return self.backbone(image.flatten(0, 1)).pooled.unflatten(0, image.shape[:2])

    def features(self, batch: Batch) -> Tensor:
        """(B, V, D) features of a batch, cached or computed; V is 1 for a single view."""
        features = batch["features"] if "features" in batch else self.encode(batch["image"])
        features = features if features.ndim == 3 else features[:, None]
        if self.frozen_stages and "features" in batch:
            window = self.window if self.training else 1.0
            rest = self.backbone.rest(features.flatten(0, 1), self.frozen_stages, window)
            return rest.unflatten(0, features.shape[:2])
        return features

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
