"""Where in an image quality is low: the scores of its sixteenths, each of which fills an image of its own.

So any scorer has a map: a network of ours with any encoder, an export, somebody else's metric. A sixteenth is mirrored
until it fills the image's size, and so is judged at the scale at which the whole image is: a network that resizes what
it is given would otherwise see it four times as large, where sharp detail is soft, too. (Tried as well: sixteenths
alone, heads on windows of the encoder's stage maps, heads on all but a window, larger windows that overlap. They find
a blurred quarter less often.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rali_zoo.data.images import load_image
from rali_zoo.errors import ImageDecodeError
from rali_zoo.types import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rali_zoo.data.images import ImageSource
    from rali_zoo.protocols import Scorer

#: Regions a side of a map.
CELLS = 4
_SMALLEST = 24  # pixels a side of a region
_SIDE = 1024  # longer side at which a larger image is looked at


def with_map(scorer: Scorer, image: ImageSource, score: Score) -> Score:
    """A score with its map.

    Args:
        scorer: that gave the score; it looks at 16 images more.
        image: what was scored.
        score: of it.

    Returns:
        The score with :attr:`~rali_zoo.types.Score.map` and ``map_texts``; as it is where there is none: an image
        without a score, one that is too small, or a scorer that looks at no pixels.
    """
    if score.score is None:
        return score
    try:
        whole = load_image(image)
    except ImageDecodeError:  # a video, or a file that has gone
        return score
    shown = region_images(whole)
    return lay(score, scorer.score(shown, batch_size=len(shown))) if shown else score


def lay(score: Score, found: Sequence[Score]) -> Score:
    """A score with the map that the scores of its image's :func:`region_images` make."""
    values = np.array([math.nan if one.score is None else one.score for one in found], np.float32)
    if np.isnan(values).all():
        return score
    said = [one.text or next((texts[0] for _, _, texts in one.explanation if texts), "") for one in found]
    rows = tuple(tuple(said[i : i + CELLS]) for i in range(0, len(said), CELLS)) if any(said) else ()
    return replace(score, map=values.reshape(CELLS, CELLS), map_texts=rows)


def regions(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the regions of an image, row by row; none where they would be too small."""
    if min(width, height) // CELLS < _SMALLEST:
        return []
    across = [round(width * i / CELLS) for i in range(CELLS + 1)]
    down = [round(height * i / CELLS) for i in range(CELLS + 1)]
    return [(across[j], down[i], across[j + 1], down[i + 1]) for i in range(CELLS) for j in range(CELLS)]


def region_images(image: Image.Image) -> list[Image.Image]:
    """What is scored in place of each region of an image, row by row: the region, mirrored until it fills its size.

    Args:
        image: an RGB image; one above 1,024 pixels a side is reduced to that first, where its regions allow.

    Returns:
        16 images about as large as it is; none of one whose regions would be too small.
    """
    if not regions(*image.size):
        return []
    factor = max(_SIDE / max(image.size), CELLS * _SMALLEST / min(image.size))
    small = image
    if factor < 1:
        width, height = (math.ceil(side * factor) for side in image.size)
        small = image.resize((width, height), Image.Resampling.LANCZOS)
    return [_filling(np.asarray(small.crop(box))) for box in regions(*small.size)]


def _filling(region: NDArray[np.uint8]) -> Image.Image:
    across = np.concatenate([region[:, :: 1 - 2 * (i % 2)] for i in range(CELLS)], axis=1)
    return Image.fromarray(np.concatenate([across[:: 1 - 2 * (i % 2)] for i in range(CELLS)]))


def overlay(image: Image.Image, score: Score, side: int = 1024) -> Image.Image:
    """An image with its map on it: orange where it is worse than its own middle, blue where better, with numbers.

    Args:
        image: an RGB image; not changed.
        score: of it, with a map.
        side: longer side of the result in pixels, at most.

    Raises:
        ValueError: a score without a map.
    """
    from PIL import ImageDraw, ImageFont

    if score.map is None:
        raise ValueError("the score has no map")
    small = image.copy()
    small.thumbnail((side, side))
    away = np.nan_to_num(score.map - np.nanmedian(score.map))
    strength = np.clip(np.abs(away) / max(1.0, float(np.abs(away).max())), 0, 1)
    colours = np.where(away[..., None] < 0, (255, 110, 0), (40, 120, 255)).astype(np.uint8)
    cells = np.concatenate([colours, (190 * strength[..., None]).astype(np.uint8)], axis=-1)
    tint = Image.fromarray(cells, "RGBA").resize(small.size, Image.Resampling.BILINEAR)
    out = Image.alpha_composite(small.convert("RGBA"), tint).convert("RGB")
    draw = ImageDraw.Draw(out)
    size = max(10, min(out.size) // 24)
    font = ImageFont.load_default(size)
    rows, columns = score.map.shape
    for i in range(rows):
        for j in range(columns):
            place = ((j + 0.5) * out.width / columns, (i + 0.5) * out.height / rows)
            text = f"{score.map[i, j]:.1f}"
            draw.text(place, text, "white", font, "mm", stroke_width=max(1, size // 12), stroke_fill="black")
    return out


def where(score: Score) -> str:
    """The worst cell of a map in words, with what is said of it; empty without a map."""
    if score.map is None or not np.isfinite(score.map).any():
        return ""
    i, j = np.unravel_index(int(np.nanargmin(score.map)), score.map.shape)
    up = ("top", "upper middle", "lower middle", "bottom")[4 * int(i) // score.map.shape[0]]
    across = ("left", "centre left", "centre right", "right")[4 * int(j) // score.map.shape[1]]
    said = f": {score.map_texts[i][j]}" if score.map_texts else ""
    return f"lowest {up}, {across} ({score.map[i, j]:.2f}){said}"
