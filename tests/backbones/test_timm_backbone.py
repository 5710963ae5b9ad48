"""timm's adapter against timm itself."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from rali_zoo.backbones import create_backbone
from rali_zoo.errors import CheckpointError, ConfigError, UriError

MOBILENET = Path(__file__).resolve().parents[2] / "shared/weights/mobilenetv2_imagenet/model.safetensors"
if not MOBILENET.exists():  # the reference material lies beside the repository
    MOBILENET = Path(__file__).resolve().parents[3] / "shared/weights/mobilenetv2_imagenet/model.safetensors"


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def normalised(image, preprocess):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return (image - mean) / std


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=7).eval()


@pytest.fixture(scope="module")
def resnet_file(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "model.safetensors"
    save_file(resnet.state_dict(), path)
    return path


@torch.inference_mode()
def test_checkpoint_gives_timms_own_features(resnet, resnet_file, image):
    backbone = create_backbone(f"timm:test_resnet?checkpoint={resnet_file}").eval()
    x = normalised(image, backbone.preprocess)
    final = resnet.forward_features(x)
    pooled, tokens = backbone(image)
    torch.testing.assert_close(pooled, resnet.forward_head(final, pre_logits=True))
    torch.testing.assert_close(tokens, final.flatten(2).transpose(1, 2))
    assert backbone.dim == pooled.shape[1]
    assert backbone.token_dim == tokens.shape[2]
    assert backbone.preprocess.mean == timm.get_pretrained_cfg("test_resnet").mean
    assert not any("fc." in name for name, _ in backbone.named_parameters())


def test_revision_names_the_loaded_weights(resnet_file):
    uri = f"timm:test_resnet?checkpoint={resnet_file}"
    assert create_backbone(uri).revision == create_backbone(uri).revision != "random"
    assert create_backbone(uri, pretrained=False).revision == "random"
    assert create_backbone("timm:test_resnet?pretrained=false").revision == "random"


@torch.inference_mode()
def test_levels_are_the_statistics_of_timms_stages(resnet, resnet_file, image):
    uri = f"timm:test_resnet?checkpoint={resnet_file}&pool=avg_std&levels=1,2,last"
    backbone = create_backbone(uri).eval()
    final, maps = resnet.forward_intermediates(normalised(image, backbone.preprocess), indices=[1, 2])
    expected = []
    for level in (*maps, final):
        expected += [level.mean((2, 3)), level.var((2, 3), correction=0).clamp_min(1e-10).sqrt()]
    torch.testing.assert_close(backbone(image).pooled, torch.cat(expected, 1))
    assert backbone.dim == sum(part.shape[1] for part in expected)
    everything = create_backbone("timm:test_resnet?pretrained=false&pool=avg&levels=all")
    assert (
        everything(image).pooled.shape[1] == everything.dim == sum(s["num_chs"] for s in resnet.feature_info)
    )


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("timm:test_resnet?pretrained=false&levels=1", "needs pool=avg"),
        ("timm:test_resnet?pretrained=false&pool=avg&levels=1,9", "Known: 0, 1"),
        ("timm:test_resnet?pretrained=false&pool=token", "no class token"),
        ("timm:test_resnet?pretrained=false&drop_path_rate=2", r"\[0, 1\)"),
        ("timm:test_resnet?pretrained=false&pad_type=some", "Did you mean 'same'"),
    ],
)
def test_options_that_do_not_fit_the_network(uri, says):
    with pytest.raises(UriError, match=says):
        create_backbone(uri)


def test_a_file_of_another_network_is_refused(resnet_file):
    with pytest.raises(CheckpointError, match=r"missing: .*unexpected: "):
        create_backbone(f"timm:test_vit?checkpoint={resnet_file}")


@torch.inference_mode()
def test_vit_size_tokens_and_pools(tmp_path):
    torch.manual_seed(2)
    vit = timm.create_model("test_vit", num_classes=0).eval()
    path = tmp_path / "vit.pth"
    torch.save({"state_dict": vit.state_dict()}, path)
    image = torch.rand(1, 3, 96, 128)
    uri = f"timm:test_vit?checkpoint={path}&size=96x128"
    backbone = create_backbone(uri).eval()
    vit.set_input_size(img_size=(96, 128))
    final = vit.forward_features(normalised(image, backbone.preprocess))
    torch.testing.assert_close(backbone(image).tokens, final[:, vit.num_prefix_tokens :])
    torch.testing.assert_close(backbone(image).pooled, vit.forward_head(final, pre_logits=True))
    torch.testing.assert_close(create_backbone(f"{uri}&pool=token").eval()(image).pooled, final[:, 0])
    assert backbone.preprocess.size == (96, 128)
    with pytest.raises(ConfigError, match="size=64x64"):
        backbone(torch.rand(1, 3, 64, 64))
    flexible = create_backbone("timm:test_vit?pretrained=false&dynamic_img_size=true").eval()
    assert flexible(torch.rand(1, 3, 64, 80)).tokens.shape[1] == 20


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "test_efficientnet", "test_convnext", "swin_tiny_patch4_window7_224"]
)
def test_declared_sizes_hold_for_other_families(name):
    backbone = create_backbone(f"timm:{name}?pretrained=false").eval()
    pooled, tokens = backbone(torch.rand(1, 3, *backbone.preprocess.size))
    assert pooled.shape == (1, backbone.dim)
    assert tokens.shape[2] == backbone.token_dim
    assert tokens.shape[1] > 1


@torch.inference_mode()
def test_local_dir_is_timms_hub_layout(resnet, image, tmp_path):
    from timm.models import save_for_hf

    save_for_hf(resnet, tmp_path, model_config={"num_classes": 7})
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "test_resnet"
    backbone = create_backbone(f"timm:local-dir:{tmp_path}").eval()
    final = resnet.forward_features(normalised(image, backbone.preprocess))
    torch.testing.assert_close(backbone(image).pooled, resnet.forward_head(final, pre_logits=True))
    for file in tmp_path.glob("*model*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="no weights file"):
        create_backbone(f"timm:local-dir:{tmp_path}")


@torch.inference_mode()
@pytest.mark.skipif(
    not MOBILENET.exists(), reason="the ImageNet MobileNetV2 weights are not beside the repository"
)
def test_real_mobilenet_weights():
    net = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same").eval()
    timm.models.load_checkpoint(net, str(MOBILENET), strict=True)
    image = torch.rand(1, 3, 96, 96)
    final = net.forward_features(2 * image - 1)
    base = f"timm:mobilenetv2_100?checkpoint={MOBILENET}&pad_type=same&mean=0.5,0.5,0.5&std=0.5,0.5,0.5"
    for uri in (base, f"{base}&num_classes=1001"):
        backbone = create_backbone(uri).eval()
        expected = net.forward_head(final, pre_logits=True)
        torch.testing.assert_close(backbone(image).pooled, expected, atol=1e-4, rtol=1e-4)
        assert sum(p.numel() for p in backbone.parameters()) == sum(
            p.numel() for n, p in net.named_parameters() if not n.startswith("classifier.")
        )
    with pytest.raises(CheckpointError, match=r"classifier.weight \(1001, 1280\) instead of \(10, 1280\)"):
        create_backbone(f"{base}&num_classes=10")
