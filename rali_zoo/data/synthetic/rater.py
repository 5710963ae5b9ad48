"""Simulated raters: how a measured distance becomes a mean opinion score. Nobody looked at these images.

The rule, also in the column ``rule`` of every table:

1. *distance* ``D >= 0`` is measured on the pixels, between the damaged image and its pristine source
   (:func:`distance`): gradient similarity of luma at two scales, and the difference of smoothed colour and
   light. Content masks damage here, as gradients are compared relative to the image's own.
2. *annoyance* ``x = D * sum_k share_k * ANNOYANCE[type_k] * leniency[family_k]``: how much a type disturbs at
   equal distance, times the domain's own leniency towards its family. The ``share`` of each of several
   distortions is the part of the change that its step made.
3. *quality* ``q = 1 / (1 + x ** slope)`` in (0, 1], and score = ``low + (high - low) * q`` on the
   domain's scale.
4. *votes*: each simulated rater has a bias and an error of their own; votes are clipped to the scale (and
   rounded where the scale has five answers). MOS and std are those of the votes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rali_zoo.data.synthetic.distortions import DISTORTIONS, Family, Image3, to_ycc

#: Annoyance per unit of distance. Set once so that each type's mean over its five levels in ``lab`` is near
#: the mean that the raters of KADID-10k gave that type, but to 10 at most: beyond, differences too small to
#: be found in the image would decide. The camera types are set by their nearest relative.
ANNOYANCE: dict[str, float] = {
    "gaussian_blur": 7.0, "lens_blur": 10.0, "motion_blur": 6.1, "color_diffusion": 10.0, "color_shift": 10.0,
    "color_quantization": 7.0, "color_saturation_1": 6.3, "color_saturation_2": 2.7, "jpeg2000": 5.1,
    "jpeg": 7.4,
    "white_noise": 6.3, "white_noise_color": 4.9,
    "impulse_noise": 7.3, "multiplicative_noise": 5.7,
    "denoise": 9.5, "brighten": 3.4, "darken": 2.6, "mean_shift": 1.9, "jitter": 8.7,
    "non_eccentricity_patch": 5.4, "pixelate": 7.7, "quantization": 3.8, "color_block": 9.9,
    "high_sharpen": 10.0, "contrast_change": 2.1, "sensor_noise": 6.3, "white_balance": 3.0,
    "overexposure": 3.4,
}  # fmt: skip


@dataclass(frozen=True)
class Domain:
    """A population of raters and their scale.

    Attributes:
        mos_range: (lowest, highest) vote.
        low: score of an image beyond repair, on the scale.
        high: score of a pristine image, on the scale.
        slope: how sharply quality falls around an annoyance of 1.
        raters: votes an image.
        spread: std of a rater's bias, and std of the error of one vote, in parts of the scale.
        rounded: whether votes are whole numbers (absolute category rating).
        leniency: factor on annoyance by family; below 1 forgives, above 1 minds.
    """

    mos_range: tuple[float, float]
    low: float
    high: float
    slope: float
    raters: int
    spread: tuple[float, float]
    rounded: bool
    leniency: dict[Family, float] = field(default_factory=dict)


#: ``lab`` answers on the whole scale; ``wild`` is compressed to its middle, minds blur and forgives noise;
#: ``phone`` uses a slider, minds noise and bad exposure and likes sharpening.
DOMAINS: dict[str, Domain] = {
    "lab": Domain((1, 5), 1.0, 4.8, 2.0, 30, (0.08, 0.15), True),
    "wild": Domain(
        (1, 5), 1.3, 4.2, 1.3, 100, (0.08, 0.18), True,
        {"blur": 1.6, "noise": 0.6, "compression": 0.8, "colour": 1.2, "tone": 1.1},
    ),
    "phone": Domain(
        (0, 100), 8.0, 90.0, 1.4, 30, (0.06, 0.10), False,
        {"blur": 0.8, "noise": 1.4, "compression": 1.1, "colour": 0.9, "tone": 1.3, "sharpness": 0.6},
    ),
}  # fmt: skip


def _gradient_loss(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Root mean square of 1 - gradient similarity (Xue et al. 2014, equation 3) of two luma planes."""
    magnitudes = [
        np.hypot(ndimage.prewitt(plane, 0) / 3, ndimage.prewitt(plane, 1) / 3) for plane in (first, second)
    ]
    constant = 0.0026  # theirs, for pixels in [0, 1]
    similarity = (2 * magnitudes[0] * magnitudes[1] + constant) / (
        magnitudes[0] ** 2 + magnitudes[1] ** 2 + constant
    )
    return float(np.sqrt(np.mean((1 - similarity) ** 2)))


def _halve(plane: NDArray[np.floating]) -> NDArray[np.floating]:
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    plane = plane[:height, :width]
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def distance(first: Image3, second: Image3) -> float:
    """How different two (H, W, 3) images in [0, 1] look: 0 for equal ones, about 1 for ruined ones."""
    planes = [to_ycc(first), to_ycc(second)]
    lumas = [p[..., 0] for p in planes]
    coarse = [_halve(p) for p in lumas]
    structure = 0.5 * _gradient_loss(*lumas) + 0.5 * _gradient_loss(*coarse)
    # smoothed over 9 pixels, so that noise and edges do not count a second time
    light, *colour = (ndimage.uniform_filter(planes[0][..., c] - planes[1][..., c], 9) for c in range(3))
    tone = float(np.sqrt(np.mean(light**2)))
    chroma = float(np.sqrt(np.mean(colour[0] ** 2 + colour[1] ** 2)))
    return float(np.sqrt(structure**2 + tone**2 + (3 * chroma) ** 2))


def score(total: float, steps: list[tuple[str, float]], domain: Domain) -> float:
    """The score before votes, on the domain's scale (rules 2 and 3 above).

    Args:
        total: distance between the finished and the pristine image.
        steps: (distortion, distance that its step made), in order; empty for a pristine image.
        domain: whose raters.
    """
    whole = sum(part for _, part in steps)
    if whole == 0:
        return domain.high
    weight = sum(
        part / whole * ANNOYANCE[name] * domain.leniency.get(DISTORTIONS[name].family, 1.0)
        for name, part in steps
    )
    quality = 1 / (1 + (total * weight) ** domain.slope)
    return domain.low + (domain.high - domain.low) * quality


def vote(mean: float, domain: Domain, rng: np.random.Generator) -> tuple[float, float]:
    """(MOS, std of the votes) on the domain's scale around the score ``mean``."""
    low, high = domain.mos_range
    bias, error = (rng.normal(0, s * (high - low), domain.raters) for s in domain.spread)
    votes = np.clip(mean + bias + error, low, high)
    if domain.rounded:
        votes = np.round(votes)
    return float(votes.mean()), float(votes.std(ddof=1))
