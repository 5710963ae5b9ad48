"""From a decoded image to the tensor of a sample: resizing, cropping, and views.

A crop of a resized image is taken *while* resizing, from the box of the source that it shows, wherever the
image is much larger than the crop: the memory needed does not grow with the aspect ratio.
Pixels stay in [0, 1]; a backbone normalises for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from rali_zoo.errors import ConfigError
from rali_zoo.types import Colour, Interpolation, Preprocess, Resize

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

#: A resized image of at most this many times the area of its centre crop is made whole before it is cut.
WHOLE = 4

ViewKind = Literal["backbone", "whole", "center_crop", "random_crop", "grid", "multi", "multi_random"]


def to_tensor(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """Resize as ``preprocess`` says and convert, without normalising.

    Args:
        image: an RGB image.
        preprocess: ``squash`` and ``center_crop`` give its size, ``none`` the image's own.

    Returns:
        (3, H, W) uint8.
    """
    if preprocess.resize == "none":
        return levels(image)
    if preprocess.resize == "center_crop":
        return levels(_center_crop(image, preprocess))
    height, width = preprocess.size
    return levels(image.resize((width, height), _FILTERS[preprocess.interpolation]))


def levels(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB image."""
    import torch

    if image.mode != "RGB":
        raise ValueError(f"an image of mode {image.mode!r}; rali_zoo.data.images.load_image makes it 'RGB'")
    # Pillow hands over a band in a third of the time that it takes for pixels, which are to be parted again.
    return torch.from_numpy(np.stack([np.asarray(band) for band in image.split()]))


def unit(image: Tensor) -> Tensor:
    """Levels, uint8 of any shape, as float32 in [0, 1]."""
    return image.float().div_(255.0)


def fit(
    image: Image.Image,
    long_side: int | None = None,
    area: int | None = None,
    interpolation: Interpolation = "bicubic",
) -> Image.Image:
    """Shrink until the long side and the area are within their budgets; the aspect ratio is kept.

    An image that is within both is returned as it is: enlarging adds no detail to judge.

    Args:
        image: an RGB image.
        long_side: largest number of pixels of the longer side.
        area: largest number of pixels in all.
        interpolation: resampling filter.
    """
    width, height = image.size
    scales = [1.0]
    if long_side is not None:
        scales.append(long_side / max(width, height))
    if area is not None:
        scales.append(sqrt(area / (width * height)))
    scale = min(scales)
    if scale == 1.0:
        return image
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, _FILTERS[interpolation])


def random_crop(
    image: Image.Image,
    size: tuple[int, int],
    generator: torch.Generator | None = None,
    interpolation: Interpolation = "bicubic",
) -> Image.Image:
    """Cut native pixels at a random place.

    Args:
        image: an RGB image; one smaller than ``size`` is enlarged just enough to cover it.
        size: (height, width) of the crop.
        generator: draws the place; torch's global one if ``None``.
        interpolation: filter for images that are enlarged.
    """
    import torch

    full = cover((image.height, image.width), size, shrink=False)
    top, left = (
        int(torch.randint(f - s + 1, (), generator=generator)) for f, s in zip(full, size, strict=True)
    )
    return _cut(image, full, (top, left), size, interpolation)


def grid_crops(
    image: Image.Image, size: tuple[int, int], crops: int, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Native crops spread evenly over the image, in rows that follow its shape.

    Always ``crops`` of them, so that images of different sizes stack; in a small image they overlap.

    Args:
        image: an RGB image; one smaller than ``size`` is enlarged just enough to cover it.
        size: (height, width) of a crop.
        crops: how many.
        interpolation: filter for images that are enlarged.

    Returns:
        (crops, 3, height, width) uint8.
    """
    import torch

    full = cover((image.height, image.width), size, shrink=False)
    places = grid_places(full, size, crops)
    return torch.stack([levels(_cut(image, full, place, size, interpolation)) for place in places])


def grid_places(full: tuple[int, int], size: tuple[int, int], crops: int) -> list[tuple[int, int]]:
    """(top, left) of ``crops`` boxes of (height, width) ``size``, spread evenly over ``full``; row by row."""
    # As many rows as make the steps down and across alike, counted in crops.
    aspect = (full[0] / size[0]) / (full[1] / size[1])
    rows = min(max(round(sqrt(crops * aspect)), 1), crops)
    places = []
    for row, top in enumerate(_spread(full[0] - size[0], rows)):
        columns = crops * (row + 1) // rows - crops * row // rows
        places += [(top, left) for left in _spread(full[1] - size[1], columns)]
    return places


def _spread(room: int, count: int) -> list[int]:
    """``count`` offsets from 0 to ``room``; a single one is in the middle."""
    return [room // 2] if count == 1 else [round(room * i / (count - 1)) for i in range(count)]


def cover(image: tuple[int, int], size: tuple[int, int], shrink: bool) -> tuple[int, int]:
    """(height, width) at which an image just covers ``size``; its own if larger and not ``shrink``."""
    height, width = image
    if not shrink and height >= size[0] and width >= size[1]:
        return height, width
    # Truncated as torchvision and transformers do, so that the pixels fall in the same places.
    if size[0] * width >= size[1] * height:
        return size[0], max(size[1], int(size[0] * width / height))
    return max(size[0], int(size[1] * height / width)), size[1]


def centre(image: tuple[int, int], preprocess: Preprocess) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) that an image is resized to for its centre crop, and (top, left) of the crop."""
    full = cover(image, preprocess.size, shrink=True)
    rest = [f - s for f, s in zip(full, preprocess.size, strict=True)]
    top, left = (r // 2 if preprocess.crop_rule == "floor" else round(r / 2) for r in rest)
    return full, (top, left)


def _center_crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    size = preprocess.size
    full, (top, left) = centre((image.height, image.width), preprocess)
    if full[0] * full[1] <= WHOLE * size[0] * size[1]:
        # Pillow may filter rows and columns in another order when it computes only a box, which rounds
        # otherwise: images of ordinary shape are resized whole, as transformers and torchvision do.
        whole = image.resize((full[1], full[0]), _FILTERS[preprocess.interpolation])
        return whole.crop((left, top, left + size[1], top + size[0]))
    return _cut(image, full, (top, left), size, preprocess.interpolation)


def _cut(
    image: Image.Image,
    full: tuple[int, int],
    place: tuple[int, int],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Image.Image:
    """The box at ``place`` (top, left) of the image resized to ``full``, computing only that box."""
    (top, left), (height, width) = place, size
    if full == (image.height, image.width):
        return image.crop((left, top, left + width, top + height))
    across, down = image.width / full[1], image.height / full[0]
    # Rounding may carry the far edge past the image, which Pillow refuses.
    right, bottom = min((left + width) * across, image.width), min((top + height) * down, image.height)
    return image.resize(
        (width, height), _FILTERS[interpolation], box=(left * across, top * down, right, bottom)
    )


@dataclass(frozen=True)
class View:
    """How one image becomes what the model sees.

    Attributes:
        kind: ``backbone`` = as the backbone's own preprocessing resizes; ``whole`` = the whole image
            squashed to the size; ``center_crop`` = short side to the size, then the centre (CLIP);
            ``random_crop`` = native pixels at ``crops`` random places (training); ``grid`` = native pixels
            at ``crops`` places spread evenly (evaluation); ``multi`` = ``whole`` and then ``grid``;
            ``multi_random`` = ``whole`` and then ``random_crop``.
        size: side of the square in pixels; the backbone's size if ``None``.
        crops: how many native crops.
        flip: mirror every other image at random; the one augmentation that leaves quality alone.
        colour: ``srgb`` = images are converted by their embedded profiles; ``stored`` = read as stored, bit for
            bit, as the field's data sets are.

    Raises:
        ConfigError: an unknown kind or colour, a size or number below 1, or several crops of a kind that takes none.
    """

    kind: ViewKind = "backbone"
    size: int | None = None
    crops: int = 1
    flip: bool = False
    colour: Colour = "srgb"

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> View:
        """The view that a model file or a checkpoint holds; before views had colours, images were read as stored."""
        return cls(**{"colour": "stored", **state})  # type: ignore[arg-type]  # checked by __post_init__

    def __post_init__(self) -> None:
        if self.kind not in get_args(ViewKind):
            raise ConfigError(f"view kind {self.kind!r}; it is one of {', '.join(get_args(ViewKind))}")
        if self.colour not in get_args(Colour):
            raise ConfigError(f"view colour {self.colour!r}; it is one of {', '.join(get_args(Colour))}")
        if self.crops < 1 or (self.size is not None and self.size < 1):
            raise ConfigError(f"{self}: size and crops are at least 1")
        if self.crops > 1 and self.kind in ("backbone", "whole", "center_crop"):
            raise ConfigError(f"{self}: several crops need kind random_crop, grid, multi or multi_random")

    @property
    def is_random(self) -> bool:
        """Whether the same image can look different at the next visit (so nothing can be cached)."""
        return self.flip or self.kind in ("random_crop", "multi_random")

    def size_for(self, preprocess: Preprocess) -> tuple[int, int]:
        """(height, width) of what is cut: the view's own, else the backbone's."""
        return preprocess.size if self.size is None else (self.size, self.size)

    def resized(self, preprocess: Preprocess) -> Preprocess | None:
        """How the first piece is resized; ``None`` for a view of native crops only."""
        if self.kind in ("random_crop", "grid"):
            return None
        resize: Resize = "center_crop" if self.kind == "center_crop" else "squash"
        if self.kind == "backbone" and (preprocess.resize != "none" or self.size is None):
            # A size that was asked for is obeyed even by a backbone that takes any.
            resize = preprocess.resize
        return replace(preprocess, size=self.size_for(preprocess), resize=resize)

    def __call__(
        self, image: Image.Image, preprocess: Preprocess, generator: torch.Generator | None = None
    ) -> Tensor:
        """As :meth:`cut`, in float32 from 0 to 1."""
        return unit(self.cut(image, preprocess, generator))

    def cut(
        self, image: Image.Image, preprocess: Preprocess, generator: torch.Generator | None = None
    ) -> Tensor:
        """Cut one image.

        Args:
            image: an RGB image.
            preprocess: of the backbone: its size, filter and crop rule.
            generator: for whatever is random; torch's global one (seeded in each worker) if ``None``.

        Returns:
            (3, H, W) uint8, or (V, 3, H, W) with V > 1 views: ``crops`` of them, one more for ``multi`` and
            ``multi_random``.
        """
        import torch

        size = self.size_for(preprocess)
        if self.flip and bool(torch.rand((), generator=generator) < 0.5):
            image = ImageOps.mirror(image)
        views = []
        if (resized := self.resized(preprocess)) is not None:
            views.append(to_tensor(image, resized)[None])
        if self.kind in ("grid", "multi"):
            views.append(grid_crops(image, size, self.crops, preprocess.interpolation))
        if self.kind in ("random_crop", "multi_random"):
            cuts = [random_crop(image, size, generator, preprocess.interpolation) for _ in range(self.crops)]
            views.append(torch.stack([levels(cut) for cut in cuts]))
        stacked = torch.cat(views) if len(views) > 1 else views[0]
        return stacked[0] if len(stacked) == 1 else stacked
