"""Metrics of piq."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data
from skimage.metrics import structural_similarity

pytest.importorskip("piq")

import rali_zoo
from rali_zoo.baselines import list_metrics
from rali_zoo.baselines.piq import METRICS
from rali_zoo.errors import UnknownNameError, WeightsUnavailableError

OFFLINE = list_metrics("piq", offline=True)


@pytest.fixture(scope="module")
def images():
    sharp = Image.fromarray(data.astronaut()[:200, 100:320])
    return [sharp.filter(ImageFilter.GaussianBlur(r)) for r in (0, 0.7, 2, 5)]


@pytest.mark.parametrize("name", OFFLINE)
def test_less_blur_is_better(name, images):
    scorer = rali_zoo.load_model(f"piq:{name}")
    found = scorer.score(images[1:], references=[images[0]] * 3)
    scores = [s.score for s in found]
    assert all(s.error is None for s in found) and scores == sorted(scores, reverse=True)
    assert scorer.name == f"piq:{name}" and scorer.revision.startswith("piq-")
    assert scorer.modules() == [] and scorer.training_sets == () and scorer.licence == "Apache-2.0"


def test_ssim_is_that_of_scikit_image_at_this_size(images):
    """piq shrinks images whose short side is 384 or more; below, it is the plain SSIM of the channels."""
    (ssim,) = rali_zoo.load_model("piq:ssim").score(images[2], references=images[0])
    theirs, full = structural_similarity(
        *(np.asarray(images[i]) for i in (0, 2)),
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    assert ssim.score == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-3)
    assert ssim.score == pytest.approx(theirs, abs=1e-2)


@pytest.mark.parametrize("name", sorted(set(METRICS) - set(OFFLINE)))
def test_weights_that_cannot_be_had(name, monkeypatch, tmp_path):
    def unknown(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailableError, match=rf"'piq:{name}' needs https://\S+\.(pt|pth),"):
        rali_zoo.load_model(f"piq:{name}")


def test_names_are_checked():
    import piq

    assert all(hasattr(piq, name) for name in METRICS)
    with pytest.raises(UnknownNameError, match="Did you mean 'haarpsi'"):
        rali_zoo.load_model("piq:HaarPSI_")
