"""Scores of five TID2013 pairs, as the metrics' original implementations gave them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import rali_zoo
from rali_zoo.baselines import list_metrics

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "calibration"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs the calibration images in ../shared/data/calibration"
)

#: reference -> (row of the table, largest absolute difference, why it is not smaller)
TOLERANCES = {
    "pyiqa:psnr": ("psnr", 0.0051, "official values are rounded to two digits"),
    "pyiqa:ssim": ("ssim", 5e-4, "grey levels are not rounded to 8 bits as the original does"),
    "pyiqa:ms_ssim": ("ms_ssim", 0.005, "grey levels as above, and another filter between the scales"),
    "pyiqa:cw_ssim": ("cw_ssim", 1e-4, "rounding of the official values"),
    "pyiqa:fsim": ("fsim", 1e-4, "rounding of the official values"),
    "pyiqa:gmsd": ("gmsd", 1e-5, "single precision"),
    "pyiqa:nlpd": ("nlpd", 0.006, "the pyramid treats borders differently"),
    "pyiqa:vif": ("vif", 5e-4, "grey levels are not rounded to 8 bits as the original does"),
    "pyiqa:vsi": ("vsi", 0.013, "the saliency map is resized with another filter"),
    "pyiqa:mad": ("mad", 1e-3, "rounding of the official values"),
    "pyiqa:piqe": ("piqe", 0.0051, "official values are rounded to two digits"),
    "pyiqa:entropy": ("entropy", 1e-4, "rounding of the official values"),
    "piq:psnr": ("psnr", 0.0051, "official values are rounded to two digits"),
    "piq:fsim": ("fsim", 1e-4, "rounding of the official values"),
    "piq:gmsd": ("gmsd", 3e-4, "the gradient's border is treated differently"),
    "piq:vsi": ("vsi", 0.013, "the saliency map is resized with another filter"),
    "torchmetrics:PeakSignalNoiseRatio": ("psnr", 0.0051, "official values are rounded to two digits"),
}

#: Half a second an image or more on one core; ``mad`` takes minutes.
SLOW = tuple(f"pyiqa:{name}" for name in ("mad", "ms_ssim", "ssim", "cw_ssim", "vif", "entropy"))

#: Offline metrics that share a name with a row of the table but are defined otherwise: SSIM and VIF of the
#: colour channels instead of luma, or of the shrunk image.
OTHERWISE = {
    "piq:ssim",
    "piq:multi_scale_ssim",
    "piq:vif_p",
    "torchmetrics:StructuralSimilarityIndexMeasure",
    "torchmetrics:MultiScaleStructuralSimilarityIndexMeasure",
    "torchmetrics:VisualInformationFidelity",
}


def official() -> dict[str, dict[str, float]]:
    with (FOLDER / "results_official.csv").open(newline="") as file:
        return {
            row["Method"]: {k: float(v) for k, v in row.items() if k != "Method"}
            for row in csv.DictReader(file)
        }


@pytest.mark.parametrize(
    "ref", [pytest.param(r, marks=pytest.mark.slow) if r in SLOW else r for r in sorted(TOLERANCES)]
)
def test_official_values(ref):
    pytest.importorskip(ref.partition(":")[0])
    row, tolerance, _ = TOLERANCES[ref]
    expected = official()[row]
    scorer = rali_zoo.load_model(ref)
    names = sorted(expected)
    references = [FOLDER / "ref_dir" / n for n in names] if scorer.needs_reference else None
    found = scorer.score([FOLDER / "dist_dir" / n for n in names], references=references)
    for name, score in zip(names, found, strict=True):
        assert score.error is None
        # The sign of a metric for which lower is better is turned.
        assert abs(score.score) == pytest.approx(expected[name], abs=tolerance), name
        assert (score.score < 0) == (row in ("gmsd", "nlpd", "piqe", "mad"))


def test_no_offline_metric_with_an_official_value_is_left_out():
    rows = set(official())
    known = {f"pyiqa:{name}" for name in list_metrics("pyiqa", offline=True) if name in rows}
    known |= {f"piq:{name}" for name in list_metrics("piq", offline=True) if name in rows}
    assert known <= set(TOLERANCES) | OTHERWISE
