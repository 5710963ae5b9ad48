"""The grammar and the errors of backbone references; nothing here needs a network."""

import subprocess
import sys

import pytest
import torch

from rali_zoo.backbones import create_backbone, list_backbones
from rali_zoo.backbones.options import Options
from rali_zoo.backbones.weights import load_strict, read_state, weights_hash
from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError, UriError
from rali_zoo.types import Preprocess
from rali_zoo.uri import parse_uri


def read(text, **kwargs):
    return Options.read(parse_uri(text, ["timm"], "backbone"), **kwargs)


def test_importing_the_packages_imports_no_torch():
    code = "import sys, rali_zoo.backbones, rali_zoo.text; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_are_parsed():
    options = read(
        "timm:x?pretrained=false&size=96x128&resize=squash&mean=0.1,0.2,0.3&std=1,2,3&pool=avg_std&levels=2",
        pools=("avg", "avg_std"),
        own=("levels",),
    )
    assert not options.pretrained
    assert options.pool == "avg_std"
    assert options.own == {"levels": "2"}
    library = Preprocess(size=(224, 224), resize="center_crop", interpolation="bilinear")
    merged = options.preprocess(library)
    assert merged == Preprocess((96, 128), (0.1, 0.2, 0.3), (1, 2, 3), "squash", "bilinear", "floor")
    assert read("timm:x?size=64").preprocess(library).size == (64, 64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timm:x?siez=3", "Did you mean 'size'"),
        ("timm:x?size=0", "at least 1"),
        ("timm:x?size=3x3x3", "HEIGHTxWIDTH"),
        ("timm:x?resize=sqash", "Did you mean 'squash'"),
        ("timm:x?mean=1,2", "three numbers"),
        ("timm:x?std=1,0,1", "above 0"),
        ("timm:x?pretrained=no", "Known: false, true"),
        ("timm:x?pool=token", "Known: avg"),
        ("timm:x?checkpoint=nowhere.pt", "there is no file 'nowhere.pt'"),
    ],
)
def test_a_bad_option_is_named_with_its_valid_values(text, says):
    with pytest.raises(UriError, match=says):
        read(text, pools=("avg",))


@pytest.mark.parametrize(
    ("uri", "error", "says"),
    [
        ("tmm:resnet18", UriError, "Did you mean 'timm'"),
        ("resnet18", UriError, "'timm:resnet18'"),
        ("timm:resnet81?pretrained=false", UnknownNameError, "Did you mean 'resnet18'"),
        ("timm:resnet18.a1_in2k", UnknownNameError, "Did you mean 'resnet18.a1_in1k'"),
        ("timm:timm/resnet18", UriError, "'timm:hf-hub:timm/resnet18'"),
        ("open_clip:ViT-B-23/openai", UnknownNameError, "Did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32/opanai", UnknownNameError, "Did you mean 'openai'"),
        ("open_clip:ViT-B-32", UriError, "'open_clip:ViT-B-32/TAG'"),
        ("hf:./folder", UriError, "'hf:local-dir:./folder'"),
        ("hf:local-dir:nowhere", UriError, "there is no folder 'nowhere'"),
        ("rali:tyni", UnknownNameError, "Did you mean 'tiny'"),
    ],
)
def test_a_near_miss_is_answered_with_the_right_spelling(uri, error, says):
    with pytest.raises(error, match=says):
        create_backbone(uri)


def test_listing_by_pattern():
    assert list_backbones("rali:*") == [
        *(f"rali:efficientnet-lite{n}" for n in (0, 1, 2)),
        "rali:small",
        "rali:tiny",
        "rali:tiny-vit",
    ]
    assert "open_clip:ViT-L-14-336/openai" in list_backbones("open_clip:vit-l-14*")
    assert list_backbones("timm:resnet18.a1") == ["timm:resnet18.a1_in1k"]
    assert len(list_backbones()) > 1500


def test_no_network_is_an_error_and_never_random_weights(monkeypatch):
    import huggingface_hub
    import timm.models._hub
    import transformers.utils.hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    from open_clip import pretrained

    def refuse(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    for module in (timm.models._hub, pretrained, huggingface_hub, transformers.utils.hub):
        monkeypatch.setattr(module, "hf_hub_download", refuse)
    for uri in (
        "timm:resnet10t",
        "timm:hf-hub:timm/resnet18.a1_in1k@abc",
        "open_clip:RN50/openai",
        "open_clip:hf-hub:org/repo",
        "open_clip:hf-hub:org/repo@v1",
        "hf:org/repo@v1",
    ):
        with pytest.raises(CheckpointError, match=r"(?s)could not fetch.*Without a network.*local-dir"):
            create_backbone(uri)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_run"), "w"))

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="no safe weights file"):
        read_state(tmp_path / "evil.pt")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["junk.safetensors", "junk.pt"])
def test_junk_is_no_weights_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"junk" * 10)
    with pytest.raises(CheckpointError, match=name):
        read_state(tmp_path / name)


def test_strict_loading_lists_what_disagrees():
    net = torch.nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 4), "scale": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        load_strict(net, state, "file.pt")
    for part in ("1 missing: bias", "1 unexpected: scale", "weight (3, 4) instead of (3, 2)"):
        assert part in str(error.value)


def test_the_hash_follows_names_values_and_types():
    net = torch.nn.Linear(2, 3)
    first = weights_hash(net)
    assert len(first) == 12
    assert weights_hash(net) == first
    assert weights_hash(torch.nn.Sequential(net)) != first
    assert weights_hash(net.double()) != first
    net.float()
    assert weights_hash(net) == first
    with torch.no_grad():
        net.bias[0] += 1
    assert weights_hash(net) != first


def test_a_wrong_batch_is_refused():
    backbone = create_backbone("rali:tiny")
    for image in (
        torch.zeros(3, 64, 64),
        torch.zeros(1, 1, 64, 64),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ):
        with pytest.raises(ConfigError, match=r"\(B, 3, H, W\) floats"):
            backbone(image)
