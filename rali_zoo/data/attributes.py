"""What can be measured on one image alone: sharpness, noise, blocks, contrast, colour, exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating]

#: Raise it whenever a measurement changes: cached ones are then made again.
VERSION = 1
#: Larger images are averaged down by a whole factor first, so that cost is bounded.
MAX_SIDE = 768
_TILES = 8

NAMES = (
    "acuity", "best_acuity", "focus_gap", "edge_strength", "noise", "chroma_noise", "impulses", "blockiness",
    "flatness", "contrast", "colourfulness", "saturation", "brightness", "crushed", "blown", "warmth", "tint",
    "detail", "direction",
)  # fmt: skip

#: What stands beside a score, and the measurement that it is.
SHOWN = {
    "sharpness": "best_acuity",
    "noise": "noise",
    "blockiness": "blockiness",
    "contrast": "contrast",
    "colourfulness": "colourfulness",
    "exposure": "brightness",
}
_REMARKS = 2


def shown(values: dict[str, float]) -> tuple[dict[str, float], str]:
    """The attributes of :data:`SHOWN`, and the words for them with the most striking remarks.

    Args:
        values: of :func:`measure`.
    """
    from rali_zoo.data.phrases import graded, remarks

    nouns = {"contrast": " contrast", "colourfulness": " colours", "exposure": " exposure"}
    words = [graded(measured, values[measured])[0] + nouns.get(name, "") for name, measured in SHOWN.items()]
    words += [options[0] for options in remarks(values)[:_REMARKS]]
    return {name: values[measured] for name, measured in SHOWN.items()}, "; ".join(words)


def measure(image: Image.Image) -> dict[str, float]:
    """Measure one RGB image of at least 16 pixels a side (smaller ones are enlarged to that).

    Returns:
        By name: ``acuity``, ``best_acuity`` in [0, 1] share of gradient that a small blur takes away, of the
        whole image and of its most detailed quarter (sharp images lose more); ``focus_gap`` centre minus
        border acuity; ``edge_strength`` 99th percentile of the gradient; ``noise``, ``chroma_noise`` std in
        [0, 1] from the finest diagonal Haar coefficients of the flattest half (Donoho's median rule);
        ``impulses`` share of isolated extreme pixels; ``blockiness`` excess of steps at every eighth column
        or row; ``flatness`` share of neighbours that are equal; ``contrast`` std of luma; ``colourfulness``
        (Hasler and Süsstrunk 2003, pixels in [0, 1]); ``saturation``, ``brightness`` means; ``crushed``,
        ``blown`` shares of black and of white pixels; ``warmth``, ``tint`` mean red minus blue, and green
        minus magenta; ``detail`` share of pixels on edges; ``direction`` in [0, 1], 1 = all detail parallel.
    """
    factor = -(-max(image.size) // MAX_SIDE)
    image = image.reduce(factor) if factor > 1 else image
    if min(image.size) < 16:
        image = image.resize((max(16, image.width), max(16, image.height)), Image.Resampling.BICUBIC)
    red, green, blue = (np.asarray(band, np.float32) / 255 for band in image.split())
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # light and colour are means: every second row and column is enough
    values = {**_structure(luma), **_colour(*(plane[::2, ::2].copy() for plane in (red, green, blue, luma)))}
    values["chroma_noise"] = _noise(blue - green)
    return {name: float(values[name]) for name in NAMES}


def _structure(luma: Plane) -> dict[str, float]:
    signed_x, signed_y = np.diff(luma, axis=1), np.diff(luma, axis=0)
    across, down = np.abs(signed_x), np.abs(signed_y)
    soft_across = np.abs(luma[:, 5:] - luma[:, :-5]) / 5  # the step that is left after a mean over 5 pixels
    soft_down = np.abs(luma[5:] - luma[:-5]) / 5
    gradient = across[:-1] + down[:, :-1]
    full, left = _tiles(gradient), _tiles(soft_across[5:] + soft_down[:, 5:])
    acuity = 1 - left / (full + 1e-4)
    best = full >= np.quantile(full, 0.75)
    inner = np.zeros_like(best)
    inner[2:-2, 2:-2] = True
    # how far a pixel is from the nearest of its four neighbours, on every second row and column
    sides = (across[1::2, ::2], across[1::2, 1::2], down[::2, 1::2], down[1::2, 1::2])
    rows, columns = (min(side.shape[axis] for side in sides) for axis in (0, 1))
    nearest = np.minimum.reduce([side[:rows, :columns] for side in sides])
    xx, yy = np.vdot(signed_x, signed_x), np.vdot(signed_y, signed_y)
    xy = np.vdot(signed_x[:-1], signed_y[:, :-1])
    return {
        "acuity": 1 - left.sum() / (full.sum() + 1e-4),
        "best_acuity": acuity[best].mean(),
        "focus_gap": acuity[inner].mean() - acuity[~inner].mean(),
        "edge_strength": np.quantile(gradient[::2, ::2], 0.99),
        "noise": _noise(luma),
        "impulses": np.mean(nearest > 0.15),
        "blockiness": max(_blocks(across, 1), _blocks(down, 0)),
        "flatness": 0.5 * (np.mean(across == 0) + np.mean(down == 0)),
        "detail": np.mean(gradient > 0.08),
        "direction": np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-8),
    }


def _colour(red: Plane, green: Plane, blue: Plane, luma: Plane) -> dict[str, float]:
    first, second = red - green, 0.5 * (red + green) - blue
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    return {
        "contrast": luma.std(),
        "colourfulness": np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()),
        "saturation": np.mean((high - low) / (high + 0.02)),
        "brightness": luma.mean(),
        "crushed": np.mean(high < 0.04),
        "blown": np.mean(low > 0.97),
        "warmth": (red - blue).mean(),
        "tint": (green - 0.5 * (red + blue)).mean(),
    }


def _tiles(plane: Plane) -> Plane:
    """(8, 8) means over a grid of tiles."""
    height, width = (extent // _TILES for extent in plane.shape)
    cut = plane[: height * _TILES, : width * _TILES]
    return cut.reshape(_TILES, height, _TILES, width).mean(axis=(1, 3))


def _noise(plane: Plane) -> float:
    height, width = (extent // 2 * 2 for extent in plane.shape)
    p = plane[:height, :width]
    diagonal = np.abs(p[::2, ::2] - p[1::2, ::2] - p[::2, 1::2] + p[1::2, 1::2]) / 2
    rows, columns = (extent // _TILES for extent in diagonal.shape)
    tiles = diagonal[: rows * _TILES, : columns * _TILES].reshape(_TILES, rows, _TILES, columns)
    medians = np.median(tiles.swapaxes(1, 2).reshape(_TILES**2, -1), axis=1)
    return float(np.sort(medians)[: _TILES**2 // 2].mean() / 0.6745)


def _blocks(steps: Plane, axis: int) -> float:
    """How far the strongest of the 8 phases of a block grid stands out; real edges are clipped away."""
    profile = np.minimum(steps, 0.06).mean(axis=1 - axis)
    phases = np.array([profile[phase::8].mean() for phase in range(8)])
    order = np.sort(phases)
    return float((order[-1] - order[:-1].mean()) / (order[:-1].mean() + 1e-3))
