"""Where in an image quality is low: the scores of overlapping windows, laid back over the image.

A window is scored as an image of its own, so any scorer has a map: a network of ours with any encoder, an export,
somebody else's metric. Windows are cut from the decoded image, before it is resized. (Heads on windows of the
encoder's stage maps were tried too, and heads on all but a window: they find the damaged quarter less often, as a
head has only seen statistics of whole images.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rali_zoo.data.images import load_image
from rali_zoo.errors import ImageDecodeError
from rali_zoo.types import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from rali_zoo.data.images import ImageSource
    from rali_zoo.protocols import Scorer

#: Cells a side of a map, and how many of them a side of a window covers.
CELLS, SPAN = 4, 2
_SMALLEST = 32  # pixels a side of a window


def with_map(scorer: Scorer, image: ImageSource, score: Score) -> Score:
    """A score with its map.

    Args:
        scorer: that gave the score; it looks at nine windows.
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
    places = windows(whole.width, whole.height)
    if not places:
        return score
    return lay(score, scorer.score([whole.crop(box) for box in places], batch_size=len(places)))


def lay(score: Score, found: Sequence[Score]) -> Score:
    """A score with the map that the scores of its image's windows make, in the order of :func:`windows`."""
    if all(one.score is None for one in found):
        return score
    return replace(score, map=_laid(found), map_texts=_texts(found))


def windows(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the windows of an image, row by row; none where they would be too small."""
    if min(width, height) * SPAN // CELLS < _SMALLEST:
        return []
    across = [round(width * i / CELLS) for i in range(CELLS + 1)]
    down = [round(height * i / CELLS) for i in range(CELLS + 1)]
    return [
        (across[j], down[i], across[j + SPAN], down[i + SPAN])
        for i in range(CELLS - SPAN + 1)
        for j in range(CELLS - SPAN + 1)
    ]


def _laid(found: Sequence[Score]) -> NDArray[np.float32]:
    """(CELLS, CELLS): each cell the mean of the windows that cover it."""
    side = CELLS - SPAN + 1
    total, count = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for k, one in enumerate(found):
        if one.score is not None:
            i, j = divmod(k, side)
            total[i : i + SPAN, j : j + SPAN] += one.score
            count[i : i + SPAN, j : j + SPAN] += 1
    with np.errstate(invalid="ignore"):
        return (total / count).astype(np.float32)


def _texts(found: Sequence[Score]) -> tuple[tuple[str, ...], ...]:
    """What is said of the window whose middle is nearest to each cell; empty where nothing is."""
    said = [one.text or next((texts[0] for _, _, texts in one.explanation if texts), "") for one in found]
    if not any(said):
        return ()
    side = CELLS - SPAN + 1
    nearest = [min(max(round(i - (SPAN - 1) / 2), 0), side - 1) for i in range(CELLS)]
    return tuple(tuple(said[i * side + j] for j in nearest) for i in nearest)


def overlay(image: Image.Image, score: Score, side: int = 1024) -> Image.Image:
    """An image with its map on it: orange where it is worse than its own middle, blue where better, with numbers.

    Args:
        image: an RGB image; not changed.
        score: of it, with a map.
        side: longer side of the result in pixels, at most.

    Raises:
        ValueError: a score without a map.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    if score.map is None:
        raise ValueError("the score has no map")
    small = image.copy()
    small.thumbnail((side, side))
    away = np.nan_to_num(score.map - np.nanmedian(score.map))
    strength = np.clip(np.abs(away) / max(1.0, float(np.abs(away).max())), 0, 1)
    colours = np.where(away[..., None] < 0, (255, 110, 0), (40, 120, 255)).astype(np.uint8)
    cells = np.concatenate([colours, (190 * strength[..., None]).astype(np.uint8)], axis=-1)
    tint = Pillow.fromarray(cells, "RGBA").resize(small.size, Pillow.Resampling.BILINEAR)
    out = Pillow.alpha_composite(small.convert("RGBA"), tint).convert("RGB")
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
