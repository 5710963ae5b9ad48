"""What people use instead of a model: each against its package's own call."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from skimage import data

import rali_zoo
from rali_zoo.baselines import list_metrics
from rali_zoo.baselines.classic import METRICS
from rali_zoo.errors import MissingExtraError, UnknownNameError

#: The package of each, by the name it is imported under.
IMPORTED = {"scikit-video": "skvideo"}


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(data.astronaut()[:300, 60:400])


def score_of(name: str, image: Image.Image) -> float:
    if package := METRICS[name].package:
        pytest.importorskip(IMPORTED.get(package, package))
    (found,) = rali_zoo.load_model(f"classic:{name}").score(image)
    assert found.error is None and found.score is not None
    return found.score


def test_laplacian_and_tenengrad_are_opencvs(photograph):
    cv2 = pytest.importorskip("cv2")
    grey = np.asarray(photograph.convert("L"))
    assert score_of("laplacian", photograph) == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var(), rel=1e-6)
    gradient = [cv2.Sobel(grey, cv2.CV_64F, *axis, ksize=3) for axis in ((1, 0), (0, 1))]
    assert score_of("tenengrad", photograph) == pytest.approx(sum((g**2).mean() for g in gradient), rel=1e-6)


def test_brisque_is_its_packages(photograph, monkeypatch):
    ours = score_of("brisque", photograph)
    brisque = pytest.importorskip("brisque").BRISQUE
    scale = brisque.scale_features
    monkeypatch.setattr(brisque, "scale_features", lambda self, x: scale(self, [np.ravel(f)[0] for f in x]))
    assert ours == pytest.approx(-brisque().score(np.asarray(photograph)), rel=1e-6)


def test_niqe_is_its_packages(photograph, monkeypatch):
    ours = score_of("niqe", photograph)
    # Their function asks NumPy and SciPy for names that are gone; what it computes is as it was.
    monkeypatch.setattr(np, "int", int, raising=False)
    module = sys.modules.get("skvideo.measure.niqe") or import_module("skvideo.measure.niqe")

    def imresize(image, factor, interp, mode):
        size = tuple(int(side * factor) for side in image.shape[::-1])
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    monkeypatch.setattr(module.scipy.misc, "imresize", imresize, raising=False)
    theirs = module.niqe(np.asarray(photograph.convert("L")))
    assert ours == pytest.approx(-float(theirs[0]), rel=1e-4)


def test_checks_are_cleanvisions(photograph, tmp_path):
    imagelab = pytest.importorskip("cleanvision").Imagelab
    blurred = photograph.filter(ImageFilter.GaussianBlur(4))
    for name, image in (
        ("a", photograph),
        ("b", blurred),
        ("c", ImageEnhance.Brightness(photograph).enhance(0.2)),
    ):
        image.save(tmp_path / f"{name}.png")
    lab = imagelab(data_path=str(tmp_path))
    lab.find_issues({"blurry": {}, "dark": {}}, n_jobs=1, verbose=False)
    for issue in ("blurry", "dark"):
        for path, row in lab.issues.iterrows():
            ours = score_of(f"cleanvision_{issue}", Image.open(path))
            assert ours == pytest.approx(row[f"{issue}_score"], abs=1e-6), (issue, path)
    assert score_of("cleanvision_odd_size", photograph) == pytest.approx(np.sqrt(340 * 300))


@pytest.mark.parametrize("name", ["laplacian", "tenengrad", "cleanvision_blurry", "brisque", "niqe"])
def test_blur_is_worse(name, photograph):
    assert score_of(name, photograph) > score_of(name, photograph.filter(ImageFilter.GaussianBlur(4)))


def test_a_small_image_has_a_reason_and_no_score():
    pytest.importorskip("skvideo")
    (found,) = rali_zoo.load_model("classic:niqe").score(Image.new("RGB", (100, 300)))
    assert found.score is None and "192 pixels" in str(found.error)


def test_names():
    assert list_metrics("classic") == list_metrics("classic", offline=True) == sorted(METRICS)
    with pytest.raises(UnknownNameError, match="laplacian"):
        rali_zoo.load_model("classic:laplace")


@pytest.mark.parametrize("name", [n for n, row in METRICS.items() if row.package])
def test_a_missing_package_names_its_extra(name, monkeypatch):
    package = METRICS[name].package
    found = IMPORTED.get(package, package)
    for module in [m for m in sys.modules if m == found or m.startswith(f"{found}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, found, None)
    with pytest.raises(MissingExtraError, match=r"rali-zoo\[classic\]"):
        rali_zoo.load_model(f"classic:{name}")
