"""Metrics of pyiqa: signs, ranges, weights that cannot be had, training around them."""

from __future__ import annotations

import socket
import time

import pytest
import torch
from PIL import Image, ImageFilter
from skimage import data

pytest.importorskip("pyiqa")

import rali_zoo
from rali_zoo.baselines import list_metrics
from rali_zoo.baselines.base import Frozen, MetricScorer, networks_in
from rali_zoo.baselines.pyiqa import _configs, _llama_watched, _range, facts_of
from rali_zoo.baselines.pyiqa_facts import _TRAINED, REFUSED
from rali_zoo.errors import ConfigError, UnknownNameError, UriError, WeightsUnavailableError

SLOW = ("mad",)
OFFLINE = [name for name in list_metrics("pyiqa", offline=True) if name not in SLOW]


@pytest.fixture(scope="module")
def images():
    sharp = Image.fromarray(data.astronaut()[:192, 100:292])
    return [sharp.filter(ImageFilter.GaussianBlur(r)) for r in (0, 0.7, 4)]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    from huggingface_hub import constants
    from pyiqa.utils import download_util

    def unknown(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the tests' own setting
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # the cache of CLIP


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.usefixtures("no_network")
def test_metrics_without_weights_load_offline_and_prefer_less_blur(name, images, capsys):
    scorer = rali_zoo.load_model(f"pyiqa:{name}")
    assert capsys.readouterr().out == ""
    references = [images[0]] * 2 if scorer.needs_reference else None
    mild, strong = scorer.score(images[1:], references=references)
    assert mild.error is None and strong.error is None
    if name == "entropy":  # of grey levels, which blur hardly changes
        assert scorer.score(Image.new("RGB", (64, 64)))[0].score < mild.score
    else:
        assert mild.score > strong.score
    assert scorer.training_sets == () and scorer.native_scale
    assert scorer.licence == "PolyForm-Noncommercial-1.0.0" and scorer.revision.startswith("pyiqa-")


def test_an_image_that_a_metric_has_no_memory_for_costs_itself(monkeypatch):
    scorer = rali_zoo.load_model("pyiqa:entropy")
    monkeypatch.setattr("rali_zoo.baselines.pyiqa._MOST_BYTES", 2048 * 64 * 64)
    fits, large = scorer.score([Image.new("RGB", (64, 64)), Image.new("RGB", (65, 64))])
    assert fits.error is None
    assert large.score is None and "65x64" in large.error


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("niqe", "niqe_modelparameters.mat"),  # a file of pyiqa
        ("brisque", "brisque_svm_weights.pth"),
        ("clipiqa", "RN50.pt"),  # OpenAI's
        ("topiq_nr", "timm/resnet50"),  # the hub, through timm
        ("fgresq", "openai/clip-vit-base-patch16"),  # the hub, through transformers
        ("qrealign", "Q-ReAlign-Mini"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_weights_that_cannot_be_had_are_named_soon(name, file, monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(WeightsUnavailableError, match=f"'pyiqa:{name}' needs .*{file}"):
        rali_zoo.load_model(f"pyiqa:{name}")
    assert not waited


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_every_other_metric_needs_a_file_and_says_so():
    """The probe behind the table of metrics without weights."""
    for name in sorted(set(list_metrics("pyiqa")) - set(list_metrics("pyiqa", offline=True))):
        with pytest.raises(WeightsUnavailableError, match="needs"):
            rali_zoo.load_model(f"pyiqa:{name}")


def test_every_metric_is_known_and_described():
    configs = _configs()
    assert set(list_metrics("pyiqa")) | set(REFUSED) == set(configs)
    assert set(list_metrics("pyiqa", offline=True)) <= set(configs)
    named = " ".join(_TRAINED.values()).split()
    assert set(named) <= set(configs) and len(named) == len(set(named))
    facts = {name: facts_of(name, configs[name]) for name in list_metrics("pyiqa")}
    assert sum(f.needs_reference for f in facts.values()) == 31  # 32 with the pairwise one
    assert facts["niqe"].lower_better and facts["niqe"].value_range == (0.0, 100.0)
    assert facts["qalign"].value_range == (1.0, 5.0) and not facts["qalign"].lower_better
    assert facts["musiq-spaq"].training_sets == ("spaq",) and facts["afine_fr"].training_sets is None


def test_signs_and_ranges_follow_the_metadata():
    configs = _configs()
    compute = lambda image, _: image.mean()  # noqa: E731
    grey = Image.new("RGB", (4, 4), (255, 255, 255))
    niqe = MetricScorer(facts_of("niqe", configs["niqe"]), compute)
    assert niqe.score(grey)[0].score == -1.0 and niqe.score_range == (-100.0, 0.0) and niqe.native_scale
    qalign = MetricScorer(facts_of("qalign", configs["qalign"]), compute)
    assert qalign.score(grey)[0].score == 1.0 and not qalign.native_scale
    assert _range("0, ~") is None and _range("~-1, ~0.1") == (-1.0, 0.1)
    assert _range("quality: 0, 1; rank: 0, 2") is None


def test_a_metric_whose_metadata_forget_its_sign():
    """DMM is 0 for equal images and grows with their distance."""
    from pyiqa.archs.dmm_arch import DMM
    from torchvision import models

    class Random(torch.nn.Module):
        def __init__(self, weights: object) -> None:
            super().__init__()
            self.features = models.vgg.make_layers(models.vgg.cfgs["D"])

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "vgg16", Random)
        metric = Frozen(DMM())
    one = torch.rand(1, 3, 128, 128)
    near, far = (float(metric(one + e * torch.randn_like(one), one)) for e in (0.01, 0.3))
    assert float(metric(one, one)) == pytest.approx(0, abs=1e-6) and 0 < near < far
    assert facts_of("dmm", _configs()["dmm"]).lower_better


def test_clip_in_a_list_is_counted_and_stays_in_evaluation_mode():
    from pyiqa.archs.clip_model import CLIP
    from pyiqa.archs.clipiqa_arch import CLIPIQA

    small = CLIP(64, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyiqa.archs.clipiqa_arch.load", lambda *a, **k: small)
        metric = Frozen(CLIPIQA())
    found = networks_in(metric)
    assert sum(p.numel() for p in metric.parameters()) == 0
    assert any(m is small for m in found)
    count = sum(p.numel() for m in found for p in m.parameters())
    assert count == sum(p.numel() for p in small.parameters())


def test_bad_references_say_what_to_type():
    with pytest.raises(UnknownNameError, match="Did you mean 'ms_ssim'"):
        rali_zoo.load_model("pyiqa:ms_sim")
    with pytest.raises(ConfigError, match="two sets of images"):
        rali_zoo.load_model("pyiqa:fid")
    with pytest.raises(UriError, match="trust_pickle"):
        rali_zoo.load_model("pyiqa:psnr?trust=true")
    with pytest.raises(ConfigError, match="give references"):
        rali_zoo.load_model("pyiqa:psnr").score(Image.new("RGB", (8, 8)))


def test_training_around_a_metric_of_pyiqa(images):
    scorer = rali_zoo.load_model("pyiqa:nlpd")
    before = scorer.score(images[1], references=images[0])[0].score
    trainee = torch.nn.ModuleList(scorer.modules())
    trainee.train()
    assert trainee.training and not any(m.training for n in scorer.modules() for m in n.modules())
    assert scorer.score(images[1], references=images[0])[0].score == before


def test_a_metric_that_cannot_be_loaded_leaves_transformers_alone():
    from transformers.models.llama import modeling_llama

    attention, forward = modeling_llama.LlamaAttention, modeling_llama.LlamaModel.forward
    with pytest.raises(WeightsUnavailableError):
        rali_zoo.load_model("pyiqa:qalign")
    assert modeling_llama.LlamaAttention is attention and modeling_llama.LlamaModel.forward is forward


def test_a_metric_that_replaces_another_librarys_network_says_so():
    from transformers.models.llama import modeling_llama

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.warns(UserWarning, match="replaced transformers' Llama"),
    ):
        patch.setattr(modeling_llama.LlamaModel, "forward", modeling_llama.LlamaModel.forward)
        with _llama_watched("pyiqa:qalign"):
            modeling_llama.LlamaModel.forward = lambda self: None
