"""What pyiqa's metadata do not say of its metrics: who needs weights, what was trained on what."""

from __future__ import annotations

from typing import Any

#: Metrics that need no file: found by making each of the 106 of pyiqa 0.1.16 without a network and with empty
#: caches. ``mad`` takes a minute an image on one core.
OFFLINE = (
    "cw_ssim",
    "entropy",
    "fsim",
    "gmsd",
    "mad",
    "ms_ssim",
    "nlpd",
    "piqe",
    "psnr",
    "psnry",
    "ssim",
    "ssimc",
    "vif",
    "vsi",
)

_SET = "it compares two sets of images"

#: Names that give no score of one image, and why.
REFUSED = {
    "fid": _SET,
    "sfid": _SET,
    "fid_dinov2": _SET,
    "inception_score": "it is a number of a set of images",
    "clipscore": "it needs a caption of each image",
    "fgresq_pair": "it says which of two images is the better one",
}

#: Bytes that a metric takes for each pixel where a large photograph would end the process: pyiqa 0.1.16 spreads each
#: pixel over the 256 bins of its histogram in 64 bits.
BYTES_A_PIXEL = {"entropy": 2048}

#: Metadata that are wrong in pyiqa 0.1.16. DMM sums squared differences of features: 0 for equal images,
#: more for worse ones, yet it lacks ``lower_better``.
CORRECTED: dict[str, dict[str, Any]] = {"dmm": {"lower_better": True}}

_NOTHING = (
    "cw_ssim deepdc entropy fsim gmsd ilniqe mad ms_ssim niqe niqe_matlab nlpd piqe psnr psnry ssim ssimc "
    "vif vsi clipiqa maclip qualiclip"
)
_MIX = ("live", "csiq", "kadid10k", "bid", "livec", "koniq10k")

#: Rated data sets by metric, in our names where we have one: from the metrics' papers and from the names of
#: the files that pyiqa loads. What is not here is not known. The first row is fitted to no ratings.
_TRAINED: dict[tuple[str, ...], str] = {
    (): _NOTHING,
    ("live",): "brisque brisque_matlab arniqa-live",
    ("csiq",): "arniqa-csiq",
    ("tid2013",): "arniqa-tid",
    ("kadid10k",): "dists topiq_fr wadiqam_fr maniqa-kadid arniqa-kadid",
    ("pipal",): "ahiq maniqa-pipal topiq_fr-pipal",
    ("bapps",): "lpips lpips-vgg lpips+ lpips-vgg+ stlpips stlpips-vgg",
    ("pieapp",): "pieapp",
    ("ma2017",): "nrqm pi",
    ("koniq10k",): (
        "cnniqa musiq nima-koniq dbcnn maniqa clipiqa+ clipiqa+_vitL14_512 clipiqa+_rn50_512 tres hyperiqa "
        "topiq_nr liqe wadiqam_nr arniqa qualiclip+"
    ),
    ("spaq",): "musiq-spaq nima-spaq topiq_nr-spaq arniqa-spaq qualiclip+-spaq",
    ("livec",): "arniqa-clive qualiclip+-clive",
    ("flive",): "paq2piq musiq-paq2piq tres-flive topiq_nr-flive arniqa-flive qualiclip+-flive",
    ("ava",): "musiq-ava nima nima-vgg16-ava topiq_iaa topiq_iaa_res50",
    ("sac", "logos", "ava"): "laion_aes",
    ("cgfiqa",): "topiq_nr-face",
    ("gfiqa",): "topiq_nr-face-v1",
    ("tid2013", "kadid10k", "livec"): "metaiqa",
    _MIX: "liqe_mix unique compare2score",
    ("koniq10k", "spaq", "kadid10k", "ava", "lsvq"): "qalign qalign_8bit qalign_4bit",
}


def training_sets(name: str) -> tuple[str, ...] | None:
    """Rated data sets that a metric was fitted to; ``None`` where that is not known."""
    return next((sets for sets, names in _TRAINED.items() if name in names.split()), None)
