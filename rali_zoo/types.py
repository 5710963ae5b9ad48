"""The few types every part of the package agrees on: shapes and ranges are stated here, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    #: An image: where it is, its file's bytes, or its pixels; see :func:`rali_zoo.data.images.load_image`.
    ImageSource = str | Path | bytes | Image.Image | np.ndarray | Tensor

#: Scores enter the models and leave the package on this scale, higher is better.
MOS_RANGE = (1.0, 5.0)

Resize = Literal["squash", "center_crop", "none"]
Interpolation = Literal["bilinear", "bicubic"]
#: Colours of images: converted to sRGB by the embedded profile, or the values as they are stored.
Colour = Literal["srgb", "stored"]
#: What computes a network on a CPU; ``auto`` is ONNX Runtime where it is installed, equal and worth it.
Runtime = Literal["auto", "torch", "onnx"]

#: (weight in [0, 1], prototype score in [1, 5], descriptions) of the prototypes that carry most of a score
Explanation = tuple[tuple[float, float, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the ``image`` of a :class:`Sample`, and how a backbone normalises it.

    Attributes:
        size: (height, width) in pixels that the backbone expects; ignored by ``resize="none"``.
        mean: per channel, of pixels in [0, 1]; applied inside the backbone.
        std: per channel, of pixels in [0, 1]; applied inside the backbone.
        resize: ``squash`` = the whole image to ``size``, aspect ratio lost; ``center_crop`` = short
            side to ``size`` then a crop of the centre (CLIP); ``none`` = native pixels.
        interpolation: resampling filter (always antialiased).
        crop_rule: where a centre crop starts when the remainder is odd: ``floor`` (transformers) or
            ``round`` (torchvision, open_clip).
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Resize = "squash"
    interpolation: Interpolation = "bicubic"
    crop_rule: Literal["floor", "round"] = "floor"


class Sample(TypedDict, total=False):
    """One image as a data set yields it."""

    image: Tensor  #: (3, H, W) float32 in [0, 1], RGB, not normalised; (V, 3, H, W) with V views
    features: Tensor  #: (D,) or (V, D) float32, in place of ``image`` when a frozen backbone was cached
    mos: Tensor  #: () float32 in [1, 5], higher is better; NaN where unknown
    std: Tensor  #: () float32 >= 0 on the same scale; NaN where unknown
    dataset: str  #: reference of the data set, e.g. ``koniq10k``
    id: str  #: the image's name inside its data set
    text: str  #: one description of the image; absent outside training
    distortion: str  #: class, several joined by ``;``; empty where unknown
    level: str  #: severity 1 to 5, one for all classes or one each joined by ``;``; "0" where unknown
    chain: Tensor  #: () int64, alike in images of one chain, which stand best first; -1 in no chain
    prompt: str  #: what a generated image was generated from; absent for other data sets


class Batch(TypedDict, total=False):
    """Samples collated: every tensor gains a leading dimension B, every str becomes a list."""

    image: Tensor  #: a list of B tensors where native sizes differ
    features: Tensor
    mos: Tensor
    std: Tensor
    dataset: list[str]
    id: list[str]
    text: list[str]
    distortion: list[str]
    level: list[str]
    chain: Tensor  #: only where ``data.ranks`` are given
    prompt: list[str]  #: empty where an image was not generated, or nothing is known


class Predicted(TypedDict):
    """Scores of a batch with the images that they belong to."""

    dataset: list[str]
    id: list[str]
    score: Tensor  #: (B,) in [1, 5]
    std: Tensor | None  #: (B,) on the same scale


@dataclass(frozen=True)
class Score:
    """What a scorer says of one image.

    Attributes:
        score: in [1, 5], higher is better; ``None`` when there is an error.
        std: the scorer's own uncertainty on the same scale; ``None`` where it has none.
        error: why there is no score; ``None`` when there is one.
        path: where the image came from; a position such as ``"[3]"`` for images in memory.
        model: reference of the scorer.
        explanation: (weight in [0, 1], prototype score in [1, 5], descriptions) of the prototypes that
            carry most of the score, heaviest first; empty for scorers without prototypes.
        text: what a vision-language model wrote of the image; empty for other scorers.
        map: (4, 4) float32 scores of regions, top row first (:mod:`rali_zoo.models.maps`); ``None`` where none was
            asked for.
        map_texts: what is said of each region, row by row; empty where nothing is.
        attributes: measured beside the score (:data:`rali_zoo.data.attributes.SHOWN`); empty where not asked for.
        words: for the attributes.
        warning: why the score is to be taken with care: an image smaller than those that the model was trained on.
    """

    score: float | None
    std: float | None = None
    error: str | None = None
    path: str = ""
    model: str = ""
    explanation: Explanation = field(default=(), repr=False)
    text: str = field(default="", repr=False)
    map: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    map_texts: tuple[tuple[str, ...], ...] = field(default=(), repr=False, compare=False)
    attributes: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)
    words: str = field(default="", repr=False, compare=False)
    warning: str = field(default="", repr=False, compare=False)

    def explain(self) -> str:
        """The score in words: its heaviest prototypes with the descriptions nearest to them, or its text."""
        if self.error is not None:
            return f"{self.path}: no score ({self.error})" + (f"\n  {self.text}" if self.text else "")
        lines = [
            f"{self.path}: {self.score:.2f} of 5" + (f" ± {self.std:.2f}" if self.std is not None else "")
        ]
        for weight, value, texts in self.explanation:
            lines.append(f"  {weight:5.1%} like prototype {value:.2f}: " + " | ".join(texts))
        if self.text:
            lines.append(f"  {self.text}")
        elif not self.explanation:
            lines.append("  (this scorer keeps no prototypes, so there is nothing to explain it with)")
        return "\n".join(lines)
