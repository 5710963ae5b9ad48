"""What :meth:`NetworkScorer.score` takes, and what it refuses, in Python."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rali_zoo
from rali_zoo.errors import CheckpointError, ConfigError
from rali_zoo.models.files import read_scorer, save_scorer
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.paths import SHIPPED
from rali_zoo.trainers import DistributionRegression, Regression


@pytest.fixture(scope="module")
def scorer():
    return rali_zoo.load_model("regression-tiny-synthetic")


def values(scores):
    return [score.score for score in scores]


def test_images_in_every_form_a_program_has_them(scorer, photo, photo_folder):
    paths = photo_folder(3)
    arrays = [np.array(Image.open(path)) for path in paths]
    batch = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    expected = values(scorer.score(paths))
    assert values(scorer.score(batch)) == pytest.approx(expected, abs=1e-5)
    assert values(scorer.score(batch / 255)) == pytest.approx(expected, abs=1e-5)
    assert values(scorer.score(np.stack(arrays))) == pytest.approx(expected, abs=1e-5)
    assert values(scorer.score(batch[0])) == pytest.approx(expected[:1], abs=1e-5)
    assert values(scorer.score(path.read_bytes() for path in paths)) == pytest.approx(expected, abs=1e-5)
    assert values(scorer.score(Image.open(paths[1]))) == pytest.approx(expected[1:2], abs=1e-5)
    assert [s.path for s in scorer.score(batch)] == ["[0]", "[1]", "[2]"]


def test_folders_and_patterns(scorer, photo_folder, tmp_path):
    paths = photo_folder(3)
    below = photo_folder(1, tmp_path / "photos" / "more")
    found = scorer.score(tmp_path / "photos")
    assert [s.path for s in found] == [str(p) for p in sorted([*paths, *below])]
    assert [s.path for s in scorer.score(f"{tmp_path}/photos/*.png")] == [str(p) for p in paths]
    assert [s.path for s in scorer.score([paths[2], tmp_path / "photos" / "more"])] == [
        str(paths[2]),
        str(below[0]),
    ]
    (tmp_path / "odd[1].png").write_bytes(paths[0].read_bytes())  # a name, though it looks like a pattern
    assert values(scorer.score(str(tmp_path / "odd[1].png"))) == pytest.approx(values(found)[1:2], abs=1e-5)
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", f"{tmp_path}/*.jpg"):
        with pytest.raises(ConfigError, match="no image below"):
            scorer.score(nothing)


def test_a_generator_is_taken_as_it_comes(scorer, photo):
    taken = []

    def images():
        for seed in range(6):
            taken.append(seed)
            yield photo(seed=seed)

    first = next(scorer.iterate(images(), batch_size=1, workers=1))
    assert first.score is not None
    assert len(taken) < 6


def test_a_network_and_its_trainer_are_models(photo):
    trainer = Regression("rali:tiny?size=40")
    network = trainer.network
    by_trainer, by_network = rali_zoo.load_model(trainer), rali_zoo.load_model(network)
    assert values(by_trainer.score(photo())) == values(by_network.score(photo()))
    assert not network.training
    with pytest.raises(ConfigError, match="not a Linear"):
        rali_zoo.load_model(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("device", ["cuda:97", "gpu"])
def test_a_device_that_is_not_there_is_named_before_anything_is_loaded(device):
    for ref in (
        "regression-tiny-synthetic",
        "ckpt:absent.ckpt",
        RegressionNetwork("rali:tiny?size=40"),
    ):
        with pytest.raises(
            ConfigError, match=f"device='{device}' cannot be used on this machine.*it has cpu"
        ):
            rali_zoo.load_model(ref, device=device)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.round().to(torch.int32), "is of torch.int32"),
        (lambda w: torch.full_like(w, float("nan")), "not finite"),
        (lambda w: torch.full_like(w, float("inf")), "not finite"),
        (lambda w: w[:1], "does not fit its own settings"),
    ],
)
def test_weights_that_would_score_wrongly_are_refused(change, says, tmp_path):
    import json

    from safetensors.torch import save_file

    header, weights = read_scorer(SHIPPED["regression-tiny-synthetic"])
    name = "head.layers.2.weight"
    weights[name] = change(weights[name]).contiguous()
    save_file(weights, tmp_path / "model.safetensors", metadata={"rali_zoo": json.dumps(header)})
    with pytest.raises(CheckpointError, match=says):
        rali_zoo.load_model(f"local-dir:{tmp_path}")


def test_an_interval_that_cannot_be_promised_is_kept_as_infinite(tmp_path):
    trainer = DistributionRegression("rali:tiny?size=40")
    trainer.calibrate(torch.tensor([0.1, 0.2, 0.3]), torch.ones(3))
    assert trainer.network.half_width(0.95) == float("inf")
    rali_zoo.save_scorer(trainer, tmp_path / "model.safetensors")
    loaded = rali_zoo.load_model(f"local-dir:{tmp_path}").network
    assert loaded.half_width(0.95) == float("inf")


def test_an_encoder_may_be_given_as_it_is(photo, tmp_path):
    import lightning as L

    from rali_zoo.backbones import create_backbone

    trainer = Regression(create_backbone("rali:tiny?size=40"))
    rali_zoo.save_scorer(trainer, tmp_path / "model.safetensors")
    loop = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    loop.strategy.connect(trainer)
    loop.save_checkpoint(tmp_path / "last.ckpt")
    expected = values(rali_zoo.load_model(trainer).score(photo()))
    for ref in (f"local-dir:{tmp_path}", f"ckpt:{tmp_path / 'last.ckpt'}"):
        assert values(rali_zoo.load_model(ref).score(photo())) == pytest.approx(expected, abs=1e-6)


def test_a_file_in_float16_is_half_as_large_and_scores_alike(tmp_path):
    torch.manual_seed(0)
    network = RegressionNetwork("rali:small").eval()
    whole = save_scorer(network, tmp_path / "whole.safetensors")
    half = save_scorer(network, tmp_path / "half.safetensors", "float16")
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = rali_zoo.load_model(str(half)).network
    assert loaded.dtype == torch.float32
    image = torch.rand(3, 3, *network.preprocess.size)
    torch.testing.assert_close(loaded(image), network(image), atol=5e-3, rtol=0)
    with torch.no_grad():
        network.head.layers[-1].weight.fill_(1e6)
    with pytest.raises(ConfigError, match="beyond the range of float16"):
        save_scorer(network, tmp_path / "large.safetensors", "float16")


def test_a_file_that_does_not_state_its_training_sets_is_refused(tmp_path):
    from rali_zoo.models.files import build, describe

    network = RegressionNetwork("rali:tiny")
    header = describe(network)
    del header["extra"]["training_sets"]
    with pytest.raises(CheckpointError, match="does not state what it was trained on"):
        build(header, network.state_dict(), "mine.safetensors")


@pytest.mark.parametrize("scheme", ["timm", "open_clip", "hf"])
def test_a_file_has_no_folder_read(scheme, tmp_path):
    from rali_zoo.errors import CheckpointError
    from rali_zoo.models.files import build, describe
    from rali_zoo.models.regression import RegressionNetwork

    network = RegressionNetwork("rali:tiny?size=32&pretrained=false")
    header = describe(network)
    header["settings"] = {**header["settings"], "backbone": f"{scheme}:local-dir:{tmp_path}"}
    with pytest.raises(CheckpointError, match="a folder of the machine that wrote it"):
        build(header, network.state_dict(), "theirs.safetensors")


@pytest.mark.parametrize("name", ["rali-tiny-synthetic", "regression-tiny-synthetic"])
def test_a_checkpoint_of_0_1_0_scores_as_its_scorer_file(name, tmp_path, photo):
    """The shipped files are of 0.1.0; its checkpoints held the same, when the trainer was the network."""
    header, weights = read_scorer(SHIPPED[name])
    only_trained = {}
    if header["class"] == "RALI":
        only_trained = {"align_log_scale": torch.zeros(()), "text_tower.weight": torch.zeros(3)}
    content = {
        "rali_zoo": header["extra"],
        "hyper_parameters": {**header["hparams"], "_class_path": f"rali_zoo.models.{header['class']}"},
        "state_dict": {**weights, **only_trained},
    }
    torch.save(content, tmp_path / "last.ckpt")
    found, wanted = (rali_zoo.load_model(ref) for ref in (f"ckpt:{tmp_path / 'last.ckpt'}", name))
    assert found.score(photo())[0].score == wanted.score(photo())[0].score
    assert found.training_sets == wanted.training_sets


def _timm_folder(folder):
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), folder / "model.safetensors")
    facts = {"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    config = {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": facts}
    (folder / "config.json").write_text(json.dumps(config))
    return f"timm:local-dir:{folder}"


def _open_clip_folder(folder):
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 64, "timm_model_name": "test_resnet", "timm_pool": "avg", "timm_proj": "linear"}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


@pytest.mark.parametrize("make", [_timm_folder, _open_clip_folder])
def test_a_file_holds_the_config_of_an_encoder_that_lay_in_a_folder(make, tmp_path, caplog):
    import shutil

    from rali_zoo.models.files import load_checkpoint, save_scorer
    from rali_zoo.models.regression import RegressionNetwork

    (tmp_path / "encoder").mkdir()
    torch.manual_seed(0)
    network = RegressionNetwork(make(tmp_path / "encoder")).eval()
    network.training_sets = ("csv:mine.csv",)
    image = torch.rand(2, 3, *network.preprocess.size)
    shutil.rmtree(tmp_path / "encoder")
    caplog.clear()
    again = network
    for _ in range(2):  # a file made of a file too
        again = load_checkpoint(str(save_scorer(again, tmp_path / "mine.safetensors")))
    assert torch.equal(again.encode(image), network.encode(image))
    assert again.preprocess == network.preprocess and again.revision == network.revision
    assert not caplog.messages


def test_a_file_fetches_no_encoder_from_elsewhere(tmp_path):
    from rali_zoo.errors import CheckpointError
    from rali_zoo.models.files import build, describe
    from rali_zoo.models.regression import RegressionNetwork

    network = RegressionNetwork(_open_clip_folder(tmp_path))
    header = describe(network)
    header["backbone"]["config"]["model_cfg"]["vision_cfg"]["timm_model_name"] = "local-dir:/etc"
    with pytest.raises(CheckpointError, match="not read because a file says so"):
        build(header, network.state_dict(), "theirs.safetensors")
