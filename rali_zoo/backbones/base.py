"""What every image encoder is: pixels in [0, 1] in, pooled features and tokens out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rali_zoo.backbones.options import Options, Pool
from rali_zoo.backbones.weights import RANDOM, load_strict, read_state, weights_hash
from rali_zoo.errors import ConfigError
from rali_zoo.types import Preprocess
from rali_zoo.uri import Uri

LOCAL = "local-dir:"


class Features(NamedTuple):
    """What a backbone says of a batch of images."""

    pooled: Tensor  #: (B, D)
    tokens: Tensor  #: (B, N, C), one row a position; class and register tokens are left out


#: of an encoder, as its library writes it
Config = dict[str, Any]
#: of the encoder that is built, while :func:`rebuilding`
_recipe: ContextVar[Config | None] = ContextVar("recipe", default=None)


def recipe_in_use() -> Config | None:
    """What :func:`rebuilding` was given."""
    return _recipe.get()


@contextmanager
def rebuilding(recipe: Config | None) -> Iterator[None]:
    """While it lasts, encoders are built from a recipe, without folder or hub; ``None`` changes nothing.

    Args:
        recipe: :meth:`Backbone.recipe` of the encoder whose weights follow.
    """
    token = _recipe.set(recipe)
    try:
        yield
    finally:
        _recipe.reset(token)


@contextmanager
def config_of(
    uri: Uri, file: str, kept: Callable[[Config], Config] = dict
) -> Iterator[tuple[str, Config | None]]:
    """Where a library finds the config of an encoder, and that config where the reference names a folder.

    The folder is that of the reference, or, while :func:`rebuilding`, one with what the recipe holds.

    Args:
        uri: of the encoder.
        file: name of the config in its folder.
        kept: makes of a config what a recipe holds, and refuses what it must not.
    """
    recipe = _recipe.get()
    if not uri.id.startswith(LOCAL):
        yield uri.id, None
    elif recipe is None:
        try:
            config = kept(json.loads(Path(uri.id.removeprefix(LOCAL), file).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            config = None  # its library says what is wrong
        yield uri.id, config
    else:
        with TemporaryDirectory() as folder:
            config = kept(recipe["config"])
            Path(folder, file).write_text(json.dumps(config), encoding="utf-8")
            yield f"{LOCAL}{folder}", config


class Backbone(nn.Module, ABC):
    """An image encoder.

    Args:
        net: the network; its state dict is what :meth:`load_weights` fills.
        uri: the reference it was built from.
        dim: length D of the pooled features.
        token_dim: length C of a token.
        preprocess: size and resize rule for whoever makes the batch; mean and std are applied here.
        fixed_size: whether the network takes no input size but ``preprocess.size``.

    Attributes:
        revision: hash of the weights that were loaded (:func:`~rali_zoo.backbones.weights.weights_hash`), or
            ``"random"``. Training does not change it.
    """

    net: Any  # an nn.Module with a library's own attributes, which nn.Module's types deny
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        uri: str,
        dim: int,
        token_dim: int,
        preprocess: Preprocess,
        fixed_size: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.uri = uri
        self.dim = dim
        self.token_dim = token_dim
        self.preprocess = preprocess
        self.fixed_size = fixed_size
        self.revision = RANDOM
        self.config: dict[str, Any] | None = None  #: what stands in the folder that the reference names
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Features:
        """Encode images.

        Args:
            image: (B, 3, H, W) floating point in [0, 1], RGB, not normalised.

        Raises:
            ConfigError: another shape or type, or a size that this network cannot take.
        """
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ConfigError(
                f"'{self.uri}' takes (B, 3, H, W) floats in [0, 1], not {tuple(image.shape)} {image.dtype}"
            )
        if self.fixed_size and tuple(image.shape[-2:]) != self.preprocess.size:
            height, width = image.shape[-2:]
            raise ConfigError(
                f"'{self.uri}' takes images of {self.preprocess.size} (height, width), "
                f"not {(height, width)}; add the option size={height}x{width}, or resize the images"
            )
        return self.features((image - self.mean) / self.std)

    @abstractmethod
    def features(self, image: Tensor) -> Features:
        """Encode images (B, 3, H, W) that are already normalised."""

    # ---- the first stages frozen, the others trained --------------------------------------------------

    def first_parts(self, stages: int) -> list[nn.Module]:
        """The modules of the first ``stages`` stages; raises :class:`ConfigError` where they cannot be parted."""
        raise ConfigError(
            f"'{self.uri}': the stages of this encoder are not known; freeze it whole (encoder_lr=0), or train it whole"
        )

    def first(self, image: Tensor, stages: int) -> Tensor:
        """What the first ``stages`` stages make of (B, 3, H, W) images in [0, 1], as (B, P) floats to cache."""
        raise NotImplementedError

    def rest(self, first: Tensor, stages: int, window: float = 1.0) -> Tensor:
        """Pooled features (B, D) of what :meth:`first` made.

        Args:
            first: (B, P).
            stages: as given to :meth:`first`.
            window: share in (0, 1] of the height and width of the map that is kept, at a random place, mirrored
                at random below 1: an augmentation in place of cropping the images.
        """
        raise NotImplementedError

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename or drop entries of a weights file that belong to other parts of its model."""
        return state

    def recipe(self) -> dict[str, object] | None:
        """What a file must hold to build the encoder again, where its reference does not say it all."""
        return None if self.config is None else {"config": self.config}

    def load_weights(self, path: str | Path) -> None:
        """Load a weights file of this architecture, strictly.

        Raises:
            CheckpointError: damaged, unsafe, or missing or unexpected names.
        """
        load_strict(self.net, self.adapt_state(read_state(path)), path)
        self.mark_loaded()

    def weights_hash(self) -> str:
        """Hash of the weights as they are now."""
        return weights_hash(self)

    def mark_loaded(self) -> None:
        """Note that the present weights are the ones that were loaded."""
        self.revision = weights_hash(self.net)


def finish(backbone: Backbone, options: Options, from_library: bool, pretrained: bool) -> Backbone:
    """Load ``?checkpoint=`` and set the revision; the common end of every adapter's ``create``.

    Args:
        backbone: the new encoder.
        options: those of its reference.
        from_library: whether the library has already loaded weights into the network.
        pretrained: as given to :func:`rali_zoo.backbones.create_backbone`.
    """
    if pretrained and options.checkpoint is not None:
        backbone.load_weights(options.checkpoint)
    elif from_library:
        backbone.mark_loaded()
    return backbone


def pool_tokens(tokens: Tensor, pool: Pool) -> Tensor:
    """Pool (B, N, C) over positions: ``avg`` gives (B, C), ``avg_std`` (B, 2C)."""
    values = tokens.float()  # the squares of small deviations vanish in half precision
    mean = values.mean(dim=1)
    if pool == "avg":
        return mean.to(tokens.dtype)
    # the gradient of a square root at 0 is infinite: a constant channel must not poison the batch
    deviation = (values - mean[:, None]).square().mean(dim=1).clamp_min(1e-10).sqrt()
    return torch.cat([mean, deviation], dim=1).to(tokens.dtype)


def map_tokens(feature_map: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H*W, C)."""
    return feature_map.flatten(2).transpose(1, 2)
