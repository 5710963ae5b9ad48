"""The released RALI's files, against the authors' computation written out in numpy and transformers."""

import io
import os
import pickle
import random
import shutil

import joblib
import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from sklearn.decomposition import PCA, IncrementalPCA
from test_fuzz_files import COUNTS, attempt, flipped

import rali_zoo
from rali_zoo.cli.main import main
from rali_zoo.errors import CheckpointError
from rali_zoo.models.official import load_official
from rali_zoo.models.unpickle import read_pca

SIDE, WIDTH, COMPONENTS, COUNT = 32, 24, 10, 7
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_release(folder, seed=0):
    """A release in the authors' layout, random throughout; weights in best/ differ from those that count."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vision = {**VISION, "image_size": SIDE, "patch_size": 8}
    config = tf.CLIPConfig(
        text_config={**WORDS, "vocab_size": 99}, vision_config=vision, projection_dim=WIDTH
    )
    tf.CLIPModel(config).save_pretrained(folder / "best")
    tf.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder / "best")
    pca = IncrementalPCA(COMPONENTS).fit(rng.normal(0.3, rng.uniform(0.1, 2, WIDTH), (60, WIDTH)))
    joblib.dump(pca, folder / "pca.pkl")
    np.savez(
        folder / "basis.npz",
        vectors=rng.normal(size=(COUNT, COMPONENTS)).astype("f4"),
        scores=np.linspace(1.2, 4.8, COUNT),
    )
    clip = tf.CLIPModel(config)  # as fine-tuned, so other weights than those of best/
    with torch.no_grad():
        clip.vision_model.embeddings.patch_embedding.weight.mul_(40)  # so that images differ
    state = {f"clip.{key}": value for key, value in clip.state_dict().items()}
    scale = np.sqrt(pca.var_) * rng.choice([-1, 1], WIDTH)  # its sign does not count
    head = {
        "pca_scale": scale,
        "pca_components": pca.components_,
        "prototypes": rng.normal(size=(COUNT, COMPONENTS)),
        "proto_scores": np.linspace(1.1, 4.9, COUNT),
        "logit_scale": np.array(1 / 0.07),
    }
    state |= {f"scorer.{key}": torch.tensor(value, dtype=torch.float32) for key, value in head.items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "ckpt.pt")
    return folder


def reference(folder, pixel_values):
    """The authors' formula in float64 numpy; CLIP's features by transformers."""
    state = torch.load(folder / "ckpt.pt", weights_only=True)["state_dict"]
    clip = tf.CLIPModel(tf.CLIPConfig.from_pretrained(folder / "best")).eval()
    clip.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("clip.")}, strict=True)
    with torch.no_grad():
        x = clip.get_image_features(pixel_values).pooler_output.double().numpy()
    head = {k[7:]: v.double().numpy() for k, v in state.items() if k.startswith("scorer.")}
    x = ((x - joblib.load(folder / "pca.pkl").mean_) / np.abs(head["pca_scale"])) @ head["pca_components"].T
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    mu = head["prototypes"] / np.linalg.norm(head["prototypes"], axis=-1, keepdims=True)
    logits = x @ mu.T * head["logit_scale"]
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ head["proto_scores"]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(release, tmp_path):
    return shutil.copytree(release, tmp_path / "copy")


def change(folder, **entries):
    """Rewrite ckpt.pt with some entries replaced, or left out where they are None."""
    state = torch.load(folder / "ckpt.pt", weights_only=True)["state_dict"]
    state |= {key.replace("__", "."): value for key, value in entries.items()}
    torch.save({"state_dict": {k: v for k, v in state.items() if v is not None}}, folder / "ckpt.pt")


def test_scores_are_the_authors_on_identical_pixels(release):
    module = rali_zoo.load_model(f"local-dir:{release}").network
    image = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    processor = tf.CLIPImageProcessorPil.from_pretrained(release / "best")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (processor.image_mean, processor.image_std))
    expected = reference(release, (image - mean) / std)
    assert np.ptp(expected) > 0.05  # else anything would agree
    with torch.inference_mode():
        np.testing.assert_allclose(module(image).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (45, 33), (33, 64), (101, 50), (61, 97), (20, 31), (75, 118)])
def test_images_are_cut_as_by_clips_processor(release, photo, size):
    """Odd remainders included, where a crop that rounds would begin one pixel later."""
    image = Image.fromarray(photo(*size, seed=sum(size)))
    scorer = rali_zoo.load_model(f"local-dir:{release}")
    processor = tf.CLIPImageProcessorPil.from_pretrained(release / "best")
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    rules = scorer.network.preprocess
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (rules.mean, rules.std))
    cut = (scorer.network.view(image, rules) - mean) / std
    # Pillow may take rows before columns for a crop and columns first for the whole: one step of 255.
    # A crop that begins elsewhere differs by far more.
    assert (cut - theirs[0]).abs().max() <= 1.01 / 255 / min(rules.std)
    assert (cut.roll(1, 1) - theirs[0]).abs().max() > 20 / 255
    (expected,) = reference(release, ((cut * std + mean).mul(255).round() / 255 - mean)[None] / std)
    assert scorer.score(image)[0].score == pytest.approx(expected, abs=1e-5)


def test_only_the_vision_tower_is_loaded(release):
    module = rali_zoo.load_model(f"local-dir:{release}").network
    clip = tf.CLIPModel.from_pretrained(release / "best")
    vision = [p for n, p in clip.named_parameters() if n.startswith(("vision_model.", "visual_projection."))]
    assert sum(p.numel() for p in module.backbone.parameters()) == sum(p.numel() for p in vision)
    assert not any("text" in name for name, _ in module.named_parameters())


@pytest.mark.parametrize("name", ["best", "pca.pkl", "basis.npz", "ckpt.pt"])
def test_a_missing_file_is_named(copy, name):
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        rali_zoo.load_model(f"local-dir:{copy}")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_best_needs_its_configs(copy, name):
    (copy / "best" / name).unlink()
    with pytest.raises(CheckpointError, match="best"):
        rali_zoo.load_model(f"local-dir:{copy}")


HEAD = ("pca_scale", "pca_components", "prototypes", "proto_scores", "logit_scale")


@pytest.mark.parametrize("key", [f"scorer.{n}" for n in HEAD] + ["clip.visual_projection.weight"])
def test_a_missing_entry_of_the_checkpoint_is_named(copy, key):
    change(copy, **{key.replace(".", "__"): None})
    with pytest.raises(CheckpointError, match=key.removeprefix("clip.")):
        rali_zoo.load_model(f"local-dir:{copy}")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"scorer__prototypes": torch.ones(COUNT, COMPONENTS + 1)}, "shapes do not fit"),
        ({"scorer__prototypes": torch.ones(COUNT + 1, COMPONENTS)}, "shapes do not fit"),
        ({"scorer__proto_scores": torch.full((COUNT,), float("nan"))}, "not finite"),
        ({"scorer__pca_scale": torch.zeros(WIDTH)}, "zeros"),
        ({"scorer__other": torch.zeros(1)}, "scorer.other"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(copy, entries, says):
    change(copy, **entries)
    with pytest.raises(CheckpointError, match=says):
        rali_zoo.load_model(f"local-dir:{copy}")


@pytest.mark.parametrize("key", ["vectors", "scores"])
def test_basis_needs_both_arrays(copy, key):
    given = dict(np.load(copy / "basis.npz"))
    del given[key]
    np.savez(copy / "basis.npz", **given)
    with pytest.raises(CheckpointError, match=f"basis.npz lacks {key}"):
        rali_zoo.load_model(f"local-dir:{copy}")


def test_another_score_scale_is_refused_and_a_drift_is_told(copy):
    given = dict(np.load(copy / "basis.npz"))
    np.savez(copy / "basis.npz", **{**given, "scores": given["scores"] / 5})
    with pytest.raises(CheckpointError, match="another scale"):
        rali_zoo.load_model(f"local-dir:{copy}")
    np.savez(copy / "basis.npz", **given)
    change(copy, scorer__proto_scores=torch.linspace(0.9, 5.2, COUNT))
    with pytest.warns(UserWarning, match=r"\[0.9, 5.2\]"):
        rali_zoo.load_model(f"local-dir:{copy}")


def test_a_processor_with_other_pixels_is_refused(copy):
    tf.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(
        copy / "best"
    )
    with pytest.raises(CheckpointError, match="not that of CLIP"):
        rali_zoo.load_model(f"local-dir:{copy}")


def test_a_converted_scorer_needs_neither_folder_nor_hub(copy, photo, tmp_path):
    images = [photo(45, 60, seed=i) for i in range(3)]
    before = rali_zoo.load_model(f"local-dir:{copy}")
    scores = [s.score for s in before.score(images)]
    assert main(["convert", f"--model=local-dir:{copy}", f"--output={tmp_path / 'one.safetensors'}"]) == 0
    shutil.rmtree(copy)
    after = rali_zoo.load_model(f"local-dir:{tmp_path / 'one.safetensors'}")
    assert [s.score for s in after.score(images)] == scores
    assert after.revision == before.revision
    assert str(tmp_path).encode() not in (tmp_path / "one.safetensors").read_bytes()


# ---- the hub --------------------------------------------------------------------------------------


def test_a_folder_of_a_hub_repository(release, tmp_path, monkeypatch, photo):
    asked = {}

    def snapshot_download(repo_id, *, revision, allow_patterns):
        asked.update(repo=repo_id, revision=revision, patterns=allow_patterns)
        shutil.copytree(
            release, tmp_path / "snapshot" / "RALI", ignore=shutil.ignore_patterns("*.safetensors")
        )
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    there = rali_zoo.load_model("hf-hub:ByteDance/Q-Insight/RALI@abc")
    here = rali_zoo.load_model(f"local-dir:{release}")
    assert there.score(photo())[0].score == here.score(photo())[0].score
    assert (asked["repo"], asked["revision"]) == ("ByteDance/Q-Insight", "abc")
    assert {"RALI/ckpt.pt", "RALI/pca.pkl", "RALI/basis.npz", "RALI/best/*.json"} < set(asked["patterns"])


def test_without_a_network_the_hub_error_says_how_to_go_on(monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match="local-dir:PATH"):
        rali_zoo.load_model("hf-hub:ByteDance/Q-Insight/RALI")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(CheckpointError, match="no scorer in a folder 'RALI'"):
        rali_zoo.load_model("hf-hub:ByteDance/Q-Insight/RALI")


# ---- the pickle -----------------------------------------------------------------------------------


def fitted():
    return IncrementalPCA(4).fit(np.random.default_rng(0).normal(size=(40, 6)))


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)])
def test_joblib_files_are_read_as_joblib_reads_them(tmp_path, compress):
    pca = fitted()
    pca.components_ = np.asfortranarray(pca.components_)
    pca.var_ = pca.var_.astype(">f4")
    joblib.dump(pca, tmp_path / "pca.pkl", compress=compress)
    found, expected = read_pca(tmp_path / "pca.pkl"), vars(joblib.load(tmp_path / "pca.pkl"))
    assert found.keys() - {"_sklearn_version"} == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_plain_pickles_of_numpy_are_read(tmp_path):
    pca = fitted()
    (tmp_path / "pca.pkl").write_bytes(pickle.dumps(pca, protocol=4))
    np.testing.assert_array_equal(read_pca(tmp_path / "pca.pkl")["mean_"], pca.mean_)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def hostile(kind, target):
    """An object, or an IncrementalPCA with an attribute, that touches ``target`` when it is unpickled."""
    touch = f"__import__('pathlib').Path({str(target)!r}).touch()"
    evil = {
        "system": Call(os.system, f"touch {target}"),
        "eval": Call(eval, touch),
        "exec": Call(exec, touch),
        "getattr": Call(getattr, IncrementalPCA, "fit"),
    }[kind.split("-")[0]]
    if "-" not in kind:
        return evil
    pca = fitted()
    place = kind.split("-")[1]
    pca.mean_ = {"nested": [evil], "attribute": evil, "array": np.array([evil], dtype=object)}[place]
    return pca


KINDS = [
    "system",
    "eval",
    "exec",
    "getattr",
    "system-attribute",
    "eval-nested",
    "system-array",
    "exec-array",
]


@pytest.mark.parametrize("write", ["joblib", "joblib3", "pickle0", "pickle2", "pickle4", "pickle5"])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, kind, write):
    target, path = tmp_path / "pwned", tmp_path / "pca.pkl"
    if write.startswith("joblib"):
        joblib.dump(hostile(kind, target), path, compress=int(write[6:] or 0))
    else:
        path.write_bytes(pickle.dumps(hostile(kind, target), protocol=int(write[6:])))
    with pytest.raises(CheckpointError, match="pca.pkl"):
        read_pca(path)
    assert not target.exists()
    if kind != "getattr":  # the file does what the test is about
        joblib.load(path)
        assert target.exists()


@pytest.mark.parametrize("thing", [PCA(2).fit(np.eye(4)), {"mean_": np.ones(3)}, [1, 2], np.array([None])])
def test_other_things_than_an_incremental_pca_are_refused(tmp_path, thing):
    joblib.dump(thing, tmp_path / "pca.pkl")
    with pytest.raises(CheckpointError, match="pca.pkl"):
        read_pca(tmp_path / "pca.pkl")


def test_damaged_files_are_refused(tmp_path):
    path, buffer = tmp_path / "pca.pkl", io.BytesIO()
    joblib.dump(fitted(), buffer)
    whole, rng = buffer.getvalue(), np.random.default_rng(0)
    for end in rng.integers(0, len(whole) - 1, 100):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            read_pca(path)
    for _ in range(300):  # whatever a garbled file says, it is an error of ours or harmless numbers
        garbled = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            garbled[place] = rng.integers(256)
        path.write_bytes(garbled)
        try:
            read_pca(path)
        except CheckpointError as error:
            assert str(path) in str(error)


def test_an_unfitted_pca_never_becomes_the_identity(copy):
    joblib.dump(IncrementalPCA(4), copy / "pca.pkl")
    with pytest.raises(CheckpointError, match="mean_"):
        rali_zoo.load_model(f"local-dir:{copy}")


def test_a_hostile_pickle_stops_the_whole_load(copy, tmp_path):
    joblib.dump(hostile("system-attribute", tmp_path / "pwned"), copy / "pca.pkl")
    with pytest.raises(CheckpointError, match=r"posix\.system|nt\.system"):
        rali_zoo.load_model(f"local-dir:{copy}")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_release_is_one_error_that_names_a_file_of_it(release, tmp_path, count):
    """Any byte of any file: the npz of the prototypes, the pickle of the PCA, weights and configs."""
    folder, rng = tmp_path / "release", random.Random(count)
    shutil.copytree(release, folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for _ in range(count):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(flipped(whole, rng))
        attempt(lambda: load_official(folder), str(folder))
        file.write_bytes(whole)
