"""The 25 distortion types of KADID-10k in 5 levels, and three of cameras, on scikit-image, SciPy and Pillow.

Types and levels follow Lin, Hosu and Saupe, "KADID-10k: A large-scale artificially distorted IQA database"
(QoMEX 2019), table II; strengths are our own, chosen for images of about 160 pixels. Two of theirs are made
monotone in level here: ``mean_shift`` and ``contrast_change`` draw a direction and then go further in it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Image3 = NDArray[np.floating]  #: (H, W, 3) in [0, 1], RGB, float32
Apply = Callable[[Image3, int, np.random.Generator], NDArray[np.floating]]
Family = Literal["blur", "noise", "compression", "colour", "tone", "spatial", "sharpness"]
LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Distortion:
    """One way to damage an image.

    Attributes:
        family: the group that a rater's leniency is stated for.
        apply: (image, level, rng) to the damaged image, not yet clipped.
    """

    family: Family
    apply: Apply


def distort(image: Image3, name: str, level: int, rng: np.random.Generator) -> Image3:
    """Apply one distortion to an (H, W, 3) image in [0, 1].

    Args:
        image: (H, W, 3) in [0, 1], RGB.
        name: a key of :data:`DISTORTIONS`.
        level: 1 (faint) to 5 (severe).
        rng: of whatever the distortion draws.

    Raises:
        UnknownNameError: no such distortion.
        ConfigError: a level outside 1 to 5.
    """
    from rali_zoo.errors import ConfigError, UnknownNameError

    if name not in DISTORTIONS:
        raise UnknownNameError("distortion", name, DISTORTIONS)
    if level not in LEVELS:
        raise ConfigError(f"level {level!r} of distortion {name!r}: levels are 1 (faint) to 5 (severe)")
    return np.clip(DISTORTIONS[name].apply(image, level, rng), 0, 1).astype(np.float32)


# ---- helpers -----------------------------------------------------------------------------------------------

_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_TO_RGB = np.linalg.inv(_TO_YCC).astype(np.float32)


def to_ycc(image: Image3) -> Image3:
    """(H, W, 3) RGB in [0, 1] to luma in [0, 1] and two colour differences in [-0.5, 0.5] (BT.601)."""
    return image @ _TO_YCC.T


def _per_channel(image: Image3, sigma: float) -> Image3:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect", truncate=3)


def _convolve(image: Image3, kernel: NDArray[np.float64]) -> Image3:
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return np.stack([ndimage.convolve(image[..., c], kernel, mode="reflect") for c in range(3)], axis=-1)


def _recode(image: Image3, kind: str, **options: object) -> Image3:
    buffer = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(buffer, kind, **options)
    return np.asarray(Image.open(buffer).convert("RGB"), np.float32) / 255


def _normal(image: Image3, rng: np.random.Generator) -> Image3:
    return rng.standard_normal(image.shape, np.float32)


def _patches(image: Image3, count: int, side: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    height, width = image.shape[:2]
    return [(int(rng.integers(0, height - side)), int(rng.integers(0, width - side))) for _ in range(count)]


# ---- blur --------------------------------------------------------------------------------------------------


def _gaussian_blur(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return _per_channel(image, (0.5, 0.8, 1.4, 2.4, 4.0)[level - 1])


def _lens_blur(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    radius = (1.0, 1.6, 2.5, 3.8, 5.5)[level - 1]
    offsets = np.arange(-int(radius + 1), int(radius + 1) + 1)
    distance = np.hypot(offsets[:, None], offsets[None])
    return _convolve(image, np.clip(radius + 0.5 - distance, 0, 1))


def _motion_blur(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    length, angle = (2.0, 3.5, 6.5, 10.0, 17.0)[level - 1], rng.uniform(0, np.pi)
    half = int(np.ceil(length / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for t in np.linspace(-length / 2, length / 2, 8 * half + 1):  # spread each sample on its four neighbours
        y, x = half + t * np.sin(angle), half + t * np.cos(angle)
        top, left = min(int(y), 2 * half - 1), min(int(x), 2 * half - 1)
        dy, dx = y - top, x - left
        kernel[top : top + 2, left : left + 2] += np.outer((1 - dy, dy), (1 - dx, dx))
    return _convolve(image, kernel)


# ---- colour ------------------------------------------------------------------------------------------------


def _color_diffusion(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    ycc = to_ycc(image)
    sigma = (1.5, 4.0, 8.0, 13.0, 20.0)[level - 1]
    ycc[..., 1:] = ndimage.gaussian_filter(ycc[..., 1:], (sigma, sigma, 0), mode="reflect", truncate=2)
    return ycc @ _TO_RGB.T


def _color_shift(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """Move one primary and all colour against luma, and deepen the colour: fringes along edges."""
    ycc = to_ycc(image)
    shift, angle = (1, 2, 4, 7, 11)[level - 1], rng.uniform(0, 2 * np.pi)
    offset = (round(shift * np.sin(angle)), round(shift * np.cos(angle)), 0)
    ycc[..., 1:] = 1.5 * ndimage.shift(ycc[..., 1:], offset, order=0, mode="nearest")
    channel = image.copy()
    index = int(rng.integers(3))
    channel[..., index] = ndimage.shift(image[..., index], offset[:2], order=0, mode="nearest")
    return 0.5 * channel + 0.5 * (ycc @ _TO_RGB.T)


def _color_quantization(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    pil = Image.fromarray(np.round(image * 255).astype(np.uint8))
    colours = (64, 36, 20, 11, 6)[level - 1]
    reduced = pil.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.asarray(reduced.convert("RGB"), np.float32) / 255


def _color_saturation_1(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    ycc = to_ycc(image)
    ycc[..., 1:] *= (0.6, 0.4, 0.2, 0.0, -0.5)[level - 1]
    return ycc @ _TO_RGB.T


def _color_saturation_2(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    ycc = to_ycc(image)
    ycc[..., 1:] *= (1.5, 2.1, 3.0, 4.2, 6.0)[level - 1]
    return ycc @ _TO_RGB.T


# ---- compression -------------------------------------------------------------------------------------------


def _jpeg2000(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    rate = (10, 16, 28, 60, 130)[level - 1]
    return _recode(image, "JPEG2000", quality_mode="rates", quality_layers=[rate])


def _jpeg(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return _recode(image, "JPEG", quality=(55, 30, 16, 9, 4)[level - 1])


# ---- noise -------------------------------------------------------------------------------------------------


def _white_noise(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return image + (0.025, 0.05, 0.085, 0.13, 0.2)[level - 1] * _normal(image, rng)


def _white_noise_color(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    sigma = (0.02, 0.035, 0.06, 0.095, 0.15)[level - 1]
    return (to_ycc(image) + sigma * _normal(image, rng)) @ _TO_RGB.T


def _impulse_noise(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    hit = rng.random(image.shape[:2])[..., None] < (0.004, 0.012, 0.03, 0.07, 0.14)[level - 1]
    return np.where(hit, rng.integers(0, 2, image.shape), image)


def _multiplicative_noise(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return image * (1 + (0.06, 0.11, 0.18, 0.28, 0.42)[level - 1] * _normal(image, rng))


def _denoise(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """Noise, and then its removal: what is left is smear."""
    from skimage.restoration import denoise_tv_chambolle

    noisy = image + (0.02, 0.035, 0.06, 0.09, 0.13)[level - 1] * _normal(image, rng)
    weight = (0.04, 0.08, 0.15, 0.25, 0.4)[level - 1]
    return denoise_tv_chambolle(noisy, weight=weight, max_num_iter=15, channel_axis=-1)


# ---- tone --------------------------------------------------------------------------------------------------


def _brighten(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return np.clip(image, 1e-4, 1) ** (0.8, 0.65, 0.5, 0.37, 0.25)[level - 1]


def _darken(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return np.clip(image, 0, 1) ** (1.2, 1.5, 1.9, 2.5, 3.4)[level - 1]


def _mean_shift(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return image + rng.choice((-1, 1)) * (0.06, 0.11, 0.17, 0.24, 0.33)[level - 1]


def _contrast_change(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    lower, higher = (0.8, 0.65, 0.5, 0.37, 0.25)[level - 1], (1.25, 1.6, 2.1, 2.9, 4.0)[level - 1]
    gain = lower if rng.random() < 0.5 else higher
    return image.mean() + gain * (image - image.mean())


# ---- spatial -----------------------------------------------------------------------------------------------


def _jitter(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    amount = (0.4, 0.8, 1.4, 2.3, 3.6)[level - 1]
    rows, columns = np.indices(image.shape[:2])
    offsets = rng.uniform(-amount, amount, (2, *image.shape[:2]))
    where = np.stack([rows, columns]) + offsets
    return np.stack(
        [ndimage.map_coordinates(image[..., c], where, order=1, mode="reflect") for c in range(3)], -1
    )


def _non_eccentricity_patch(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """Small patches are replaced by others from close by."""
    side, out = max(6, min(image.shape[:2]) // 16), image.copy()
    targets = _patches(image, (4, 10, 20, 40, 80)[level - 1], side, rng)
    height, width = image.shape[:2]
    for top, left in targets:
        dy, dx = rng.integers(-side, side + 1, 2)
        y, x = int(np.clip(top + dy, 0, height - side)), int(np.clip(left + dx, 0, width - side))
        out[top : top + side, left : left + side] = image[y : y + side, x : x + side]
    return out


def _pixelate(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    factor = (1.3, 1.7, 2.4, 3.4, 5.0)[level - 1]
    height, width = image.shape[:2]
    small = Image.fromarray(np.round(image * 255).astype(np.uint8)).resize(
        (round(width / factor), round(height / factor)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST), np.float32) / 255


def _quantization(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """Fewer tones in each channel."""
    steps = (12, 8, 6, 4, 3)[level - 1] - 1
    return np.round(image * steps) / steps


def _color_block(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """Squares of one random colour each, spread over the image."""
    side, out = max(6, min(image.shape[:2]) // 14), image.copy()
    for top, left in _patches(image, (1, 3, 6, 12, 24)[level - 1], side, rng):
        out[top : top + side, left : left + side] = rng.random(3)
    return out


# ---- sharpness ---------------------------------------------------------------------------------------------


def _high_sharpen(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    return image + (0.7, 1.5, 3.0, 5.5, 10.0)[level - 1] * (image - _per_channel(image, 1.0))


# ---- cameras -----------------------------------------------------------------------------------------------


def _sensor_noise(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """Shot and read noise in linear light, slightly spread as demosaicing does: strongest in shadows."""
    gain = (0.0008, 0.002, 0.005, 0.011, 0.022)[level - 1]
    linear = np.clip(image, 0, 1) ** 2.2
    noise = _per_channel(_normal(image, rng), 0.5) * 1.6  # 1.6 gives back the variance the spreading takes
    return np.clip(linear + np.sqrt(gain * linear + 0.3 * gain**1.5) * noise, 0, 1) ** (1 / 2.2)


def _white_balance(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """A cast from yellow to blue or from green to magenta, at equal luma."""
    warm = rng.choice((-1, 1)) * (0.08, 0.15, 0.24, 0.35, 0.5)[level - 1]
    gains = np.array(
        [1 + warm, 1, 1 - warm] if rng.random() < 0.7 else [1 + warm / 2, 1 - warm / 2, 1 + warm / 2]
    )
    return image * (gains / (_TO_YCC[0] @ gains)).astype(np.float32)


def _overexposure(image: Image3, level: int, rng: np.random.Generator) -> Image3:
    """More light than the sensor holds: highlights clip to white."""
    return (np.clip(image, 0, 1) ** 2.2 * (1.3, 1.8, 2.6, 3.8, 6.0)[level - 1]).clip(0, 1) ** (1 / 2.2)


#: Name to distortion; the first 25 in KADID-10k's order.
DISTORTIONS: dict[str, Distortion] = {
    "gaussian_blur": Distortion("blur", _gaussian_blur),
    "lens_blur": Distortion("blur", _lens_blur),
    "motion_blur": Distortion("blur", _motion_blur),
    "color_diffusion": Distortion("colour", _color_diffusion),
    "color_shift": Distortion("colour", _color_shift),
    "color_quantization": Distortion("colour", _color_quantization),
    "color_saturation_1": Distortion("colour", _color_saturation_1),
    "color_saturation_2": Distortion("colour", _color_saturation_2),
    "jpeg2000": Distortion("compression", _jpeg2000),
    "jpeg": Distortion("compression", _jpeg),
    "white_noise": Distortion("noise", _white_noise),
    "white_noise_color": Distortion("noise", _white_noise_color),
    "impulse_noise": Distortion("noise", _impulse_noise),
    "multiplicative_noise": Distortion("noise", _multiplicative_noise),
    "denoise": Distortion("blur", _denoise),
    "brighten": Distortion("tone", _brighten),
    "darken": Distortion("tone", _darken),
    "mean_shift": Distortion("tone", _mean_shift),
    "jitter": Distortion("spatial", _jitter),
    "non_eccentricity_patch": Distortion("spatial", _non_eccentricity_patch),
    "pixelate": Distortion("spatial", _pixelate),
    "quantization": Distortion("colour", _quantization),
    "color_block": Distortion("spatial", _color_block),
    "high_sharpen": Distortion("sharpness", _high_sharpen),
    "contrast_change": Distortion("tone", _contrast_change),
    "sensor_noise": Distortion("noise", _sensor_noise),
    "white_balance": Distortion("colour", _white_balance),
    "overexposure": Distortion("tone", _overexposure),
}
KADID_TYPES = tuple(DISTORTIONS)[:25]
