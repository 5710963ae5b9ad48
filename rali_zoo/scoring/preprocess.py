"""Views in 8-bit arithmetic with torch: what :class:`rali_zoo.views.View` does, faster.

Resampled values differ from Pillow's by 1 of 255 at most (both round to 8 bits between rows and columns).
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError
from rali_zoo.scoring.decode import Decoded, decode_fast
from rali_zoo.types import Interpolation, Preprocess
from rali_zoo.views import WHOLE, View, centre, cover, grid_crops, grid_places, to_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image
    from torch import Tensor

    Note = Callable[[Tensor, int, int], Tensor]

#: A reduced JPEG keeps at least this many times the pixels a side that the model sees.
MARGIN = 2


class FastView:
    """A deterministic view of images that need not be decoded in full.

    Args:
        view: how images are cut.
        preprocess: what the backbone expects.
        note: (what was made, width, height) of each image to what is handed on.

    Raises:
        ConfigError: a view that is random.
        MissingExtraError: simplejpeg is not installed.
    """

    def __init__(self, view: View, preprocess: Preprocess, note: Note | None = None) -> None:
        if importlib.util.find_spec("simplejpeg") is None:
            raise MissingExtraError("simplejpeg", "fast")
        if view.is_random:
            raise ConfigError(f"{view} is random: a score would differ from run to run")
        self.view, self.preprocess, self.note = view, preprocess, note
        self.resized = view.resized(preprocess)

    def prepare(self, source: str | bytes) -> Tensor | ImageDecodeError:
        """(3, H, W) or (V, 3, H, W) uint8, or why the image cannot be read."""
        try:
            decoded = decode_fast(source, self.least, colour=self.view.colour)
            made = self.cut(decoded)
            return made if self.note is None else self.note(made, decoded.width, decoded.height)
        except ImageDecodeError as error:
            return error

    def least(self, width: int, height: int) -> tuple[int, int] | None:
        """The smallest (width, height) to decode an image in; ``None`` where native pixels are seen."""
        if self.resized is None or self.resized.resize == "none" or self.view.kind == "multi":
            return None
        full = self.resized.size
        if self.resized.resize == "center_crop":
            full, _ = centre((height, width), self.resized)
        return MARGIN * full[1], MARGIN * full[0]

    def cut(self, decoded: Decoded) -> Tensor:
        """What the view makes of an image: (3, H, W) or (V, 3, H, W) uint8."""
        import torch

        image, views = decoded.pixels, []
        if self.resized is not None:
            views.append(_resized(decoded, self.resized)[None])
        if self.view.kind in ("grid", "multi"):
            views.append(self._grid(image))
        stacked = (torch.cat(views) if len(views) > 1 else views[0]).contiguous()
        return stacked[0] if len(stacked) == 1 else stacked

    def _grid(self, image: Tensor) -> Tensor:
        import torch

        size = self.view.size_for(self.preprocess)
        if cover(_sides(image), size, shrink=False) != _sides(image):
            return grid_crops(_image(image), size, self.view.crops, self.preprocess.interpolation)
        places = grid_places(_sides(image), size, self.view.crops)
        return torch.stack([image[:, t : t + size[0], s : s + size[1]] for t, s in places])


def _sides(image: Tensor) -> tuple[int, int]:
    return image.shape[1], image.shape[2]


def _resized(decoded: Decoded, preprocess: Preprocess) -> Tensor:
    image = decoded.pixels
    if preprocess.resize == "none":
        return image
    if preprocess.resize == "squash":
        return _resample(image, preprocess.size, preprocess.interpolation)
    # Of the whole image, since a reduced one is rounded to whole pixels, which would move the crop.
    full, (top, left) = centre((decoded.height, decoded.width), preprocess)
    height, width = preprocess.size
    if full[0] * full[1] > WHOLE * height * width:
        return to_tensor(_image(image), preprocess)
    whole = _resample(image, full, preprocess.interpolation)
    return whole[:, top : top + height, left : left + width]


def _image(image: Tensor) -> Image.Image:
    """For Pillow, which alone can resize a box of an image without the rest that would take gigabytes."""
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _resample(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    from torch.nn.functional import interpolate

    return interpolate(image[None], size=size, mode=interpolation, antialias=True)[0]
