"""Batches of images as tensors: cut with gradients, or scored exactly as files are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rali_zoo.errors import ConfigError
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.types import Interpolation, Preprocess
from rali_zoo.views import View, centre, cover, grid_places


def cut(image: Tensor, view: View, preprocess: Preprocess) -> Tensor:
    """What ``view`` makes of every image of a batch, in torch and differentiable.

    Sizes, filters and places are those of :class:`~rali_zoo.views.View`; pixels differ from its
    by rounding, since Pillow resizes in 8 bits: about 1/255 where an image is resized, nothing elsewhere.

    Args:
        image: (B, 3, H, W) floating point, nominally in [0, 1].
        view: of a scorer; not random.
        preprocess: of its network.

    Returns:
        (B, 3, h, w), or (B, V, 3, h, w) for V > 1 views.

    Raises:
        ConfigError: another shape or type, or a view that is random.
    """
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ConfigError(f"expected (B, 3, H, W) floats in [0, 1], not {tuple(image.shape)} {image.dtype}")
    if view.is_random:
        raise ConfigError(f"{view} is random: a scorer with it gives another score each time")
    views = []
    size_in = (image.shape[-2], image.shape[-1])
    if (resized := view.resized(preprocess)) is not None:
        views.append(_resized(image, size_in, resized))
    if view.kind in ("grid", "multi"):
        size = view.size_for(preprocess)
        full = cover(size_in, size, shrink=False)
        whole = _resize(image, full, preprocess.interpolation)
        places = grid_places(full, size, view.crops)
        views += [whole[..., top : top + size[0], left : left + size[1]] for top, left in places]
    return views[0] if len(views) == 1 else torch.stack(views, dim=1)


def _resized(image: Tensor, size_in: tuple[int, int], preprocess: Preprocess) -> Tensor:
    if preprocess.resize == "none":
        return image
    if preprocess.resize == "squash":
        return _resize(image, preprocess.size, preprocess.interpolation)
    full, (top, left) = centre(size_in, preprocess)
    height, width = preprocess.size
    return _resize(image, full, preprocess.interpolation)[..., top : top + height, left : left + width]


def _resize(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    resized = F.interpolate(image, size, mode=interpolation, align_corners=False, antialias=True)
    return resized.clamp(0, 1)  # bicubic filters overshoot, and Pillow's pixels cannot


def exact_scores(scorer: NetworkScorer, image: Tensor) -> Tensor:
    """Scores that ``rali-zoo score`` would give the same images as files, without gradients.

    Args:
        scorer: any.
        image: (B, 3, H, W), uint8, or floats in [0, 1], which are rounded to 8 bits as a file's are.

    Returns:
        (B,) float32 in [1, 5] on the images' device.

    Raises:
        ConfigError: another shape, or an image that cannot be scored; the message has the reason.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ConfigError(f"expected (B, 3, H, W) images, not {tuple(image.shape)}")
    found = scorer.score(list(image.detach().cpu()))
    for position, score in enumerate(found):
        if score.error is not None:
            raise ConfigError(f"image {position} of the batch has no score: {score.error}")
    return torch.tensor([score.score for score in found], dtype=torch.float32, device=image.device)
