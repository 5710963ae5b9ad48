"""Image metrics of torchmetrics, against scikit-image and their own metadata."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import rali_zoo
from rali_zoo.baselines import list_metrics
from rali_zoo.baselines.torchmetrics import METRICS
from rali_zoo.errors import UnknownNameError, UriError

OFFLINE = list_metrics("torchmetrics", offline=True)


@pytest.fixture(scope="module")
def images():
    """A photograph without black pixels, blurred more and more."""
    sharp = Image.fromarray(data.astronaut()[:200, 100:320] // 2 + 64)
    return [sharp.filter(ImageFilter.GaussianBlur(r)) for r in (0, 0.7, 2, 5)]


@pytest.mark.parametrize("name", OFFLINE)
def test_less_blur_is_better(name, images):
    scorer = rali_zoo.load_model(f"torchmetrics:{name}")
    found = scorer.score(images[1:], references=[images[0]] * 3)
    scores = [s.score for s in found]
    assert all(s.error is None for s in found) and scores == sorted(scores, reverse=True)
    # A score does not depend on what was scored before.
    assert scorer.score(images[2], references=images[0])[0].score == scores[1]
    assert scorer.training_sets == () and scorer.needs_reference and scorer.native_scale
    assert sum(p.numel() for m in scorer.modules() for p in m.parameters()) == 0


def test_values_are_those_of_scikit_image(images):
    one, two = (np.asarray(p) for p in (images[0], images[2]))
    (psnr,) = rali_zoo.load_model("torchmetrics:PeakSignalNoiseRatio").score(images[2], references=images[0])
    assert psnr.score == pytest.approx(peak_signal_noise_ratio(one, two, data_range=255), abs=1e-3)
    (ssim,) = rali_zoo.load_model("torchmetrics:StructuralSimilarityIndexMeasure").score(
        images[2], references=images[0]
    )
    theirs = structural_similarity(
        one,
        two,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim.score == pytest.approx(theirs, abs=1e-2)  # theirs has other borders


def test_the_table_agrees_with_the_classes():
    import torchmetrics.image
    from torchmetrics.image import arniqa

    for name, row in METRICS.items():
        kind = getattr(torchmetrics.image, name, None) or getattr(arniqa, name)
        assert kind.higher_is_better is not row.lower_better, name
        bounds = (kind.plot_lower_bound, kind.plot_upper_bound)
        assert row.value_range == (None if None in bounds else bounds), name


def test_equal_images_have_no_finite_psnr(images):
    (one,) = rali_zoo.load_model("torchmetrics:PeakSignalNoiseRatio").score(images[0], references=images[0])
    assert one.score is None and one.error == "the metric gave inf"


def test_names_are_checked():
    with pytest.raises(UnknownNameError, match="Did you mean 'VisualInformationFidelity'"):
        rali_zoo.load_model("torchmetrics:VisualInformationFidelty")
    with pytest.raises(UriError, match="no option 'x'"):
        rali_zoo.load_model("torchmetrics:VisualInformationFidelity?x=1")
    with pytest.raises(UnknownNameError, match="source of metrics"):
        list_metrics("skimage")
    assert set(OFFLINE) < set(list_metrics("torchmetrics"))
