"""A scorer's encoder in ONNX Runtime: torch's scores, a cache that holds, and torch wherever it cannot be."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch

import rali_zoo
from rali_zoo.cli import score as command
from rali_zoo.cli.main import main
from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.export import encoder
from rali_zoo.models.files import save_scorer
from rali_zoo.models.regression import DistributionNetwork, RegressionNetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.views import View

pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RALI_ZOO_CACHE", str(tmp_path / "cache"))


def network(uri: str = "rali:tiny?size=64", kind=RegressionNetwork):
    torch.manual_seed(0)
    return kind(uri).eval()


LITE = "rali:efficientnet-lite0?levels=all&pool=avg_std&size=96"
CASES = {
    "rali": lambda: "rali-tiny-synthetic",
    "lite": lambda: network(LITE),
    "grid": lambda: viewed(network(LITE), View("multi", crops=3)),
    "std": lambda: network(kind=DistributionNetwork),
    "vit": lambda: network("timm:test_vit?pretrained=false"),
    "clip": lambda: network("open_clip:ViT-B-32?pretrained=false"),
}


def viewed(net, view):
    net.view = view
    return net


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_torch(name, photo):
    if name == "clip":
        pytest.importorskip("onnxscript")
    images = [photo(90, 70), photo(120, 200, 1), b"no image", photo(170, 170, 2), photo(64, 64, 3)]
    model = CASES[name]()
    plain, fast = rali_zoo.load_model(model), rali_zoo.load_model(model, runtime="onnx")
    for batch_size in (2, 1):  # the number of images is free
        expected, found = plain.score(images, batch_size), fast.score(images, batch_size)
        assert fast.encode.equal
        for a, b in zip(expected, found, strict=True):
            assert (a.error, a.path) == (b.error, b.path)
            if a.score is None:
                continue
            assert abs(a.score - b.score) <= encoder.TOLERANCE
            assert (a.std is None) == (b.std is None) and (a.std or 0) == pytest.approx(b.std or 0, abs=1e-2)
            assert [e[2] for e in a.explanation] == [e[2] for e in b.explanation]


def test_a_graph_is_made_once_for_an_encoder(monkeypatch, tmp_path, caplog):
    image = torch.rand(2, 3, 64, 64)
    expected = rali_zoo.load_model(network(), runtime="onnx").score(image)
    (path,) = (tmp_path / "cache" / "onnx").iterdir()
    other = network()
    with torch.no_grad():
        other.head.layers[-1].bias.add_(1)  # another head on the same encoder
    made = []
    make = encoder.make_graph
    monkeypatch.setattr(encoder, "make_graph", lambda *a, **k: made.append(1) or make(*a, **k))
    assert rali_zoo.load_model(other, runtime="onnx").encode is not None and not made
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    again = rali_zoo.load_model(network(), runtime="onnx").score(image)
    assert made == [1] and again == expected and "damaged" in caplog.text
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1)
    assert rali_zoo.load_model(other, runtime="onnx").encode is not None and made == [1, 1]


def test_what_differs_is_computed_by_torch_and_said_once(monkeypatch, caplog):
    net, image = network(), torch.rand(2, 3, 64, 64)
    expected = NetworkScorer(net, "x").score(image)

    def wrong(content):
        return lambda image: torch.zeros(len(image), net.backbone.dim)

    monkeypatch.setattr(encoder, "_open", wrong)
    scorer = rali_zoo.load_model(net, runtime="auto")
    with caplog.at_level(logging.WARNING):
        found = [scorer.score(image), scorer.score(image)]
    assert [s.score for s in found[0]] == [s.score for s in expected] == [s.score for s in found[1]]
    assert caplog.text.count("more than 1e-05") == 1


def test_an_error_of_the_runtime_costs_no_score(monkeypatch, caplog):
    net, image = network(), torch.rand(2, 3, 64, 64)

    def broken(content):
        def run(image):
            raise RuntimeError("no luck")

        return run

    monkeypatch.setattr(encoder, "_open", broken)
    assert rali_zoo.load_model(net, runtime="auto").score(image) == rali_zoo.load_model(net).score(image)
    assert "no luck" in caplog.text


def test_weights_that_change_and_other_sizes_are_torchs():
    net, image = network(), torch.rand(2, 3, 64, 64)
    scorer = rali_zoo.load_model(net, runtime="onnx")
    scorer.score(image)
    with torch.no_grad():
        for weight in net.backbone.parameters():
            weight.mul_(1.5)
    with torch.inference_mode():
        assert torch.equal(scorer.encode(image), net.encode(image))
        assert scorer.encode(torch.rand(1, 3, 96, 96)).shape == (1, net.backbone.dim)


@pytest.mark.parametrize(
    "make",
    [
        lambda: viewed(network("rali:tiny"), View("backbone")) and "reasoner-tiny-synthetic",
        lambda: network("timm:test_resnet?pretrained=false&resize=none"),
    ],
    ids=["reasoner", "native"],
)
def test_networks_without_a_graph(make, photo):
    model = make()
    scorer = rali_zoo.load_model(model, runtime="auto")
    assert scorer.encode is None and scorer.score(photo(64, 64))[0].error is None
    with pytest.raises(ConfigError, match="runtime onnx"):
        rali_zoo.load_model(model, runtime="onnx")


def test_without_onnxruntime(monkeypatch):
    monkeypatch.setattr(encoder.importlib.util, "find_spec", lambda name: None)
    assert rali_zoo.load_model(network(), runtime="auto").encode is None
    with pytest.raises(MissingExtraError, match=r"rali-zoo\[onnx\]"):
        rali_zoo.load_model(network(), runtime="onnx")


# ---- the command ----


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_decides_by_the_number_of_images(monkeypatch, photo_folder, tmp_path):
    folder = photo_folder(4)[0].parent
    path = save_scorer(network(), tmp_path / "model.safetensors")
    used = []
    use = encoder.use_onnx
    monkeypatch.setattr(encoder, "use_onnx", lambda s, r: used.append(r) or use(s, r))

    def run(name, *words):
        target = tmp_path / f"{name}.jsonl"
        assert main(["score", str(folder), f"--model={path}", f"--output={target}", *words]) == 0
        return rows(target)

    plain = run("few")
    assert not used
    monkeypatch.setattr(command, "MANY", 4)
    many, never = run("many"), run("never", "--runtime=torch")
    assert used == ["auto"] and never == plain
    for a, b in zip(plain, many, strict=True):
        assert abs(a["score"] - b["score"]) <= encoder.TOLERANCE
    monkeypatch.setattr(command, "MANY", 5)
    assert run("always", "--runtime=onnx") == many and used[1:] == ["onnx", "onnx"]


def test_a_run_that_goes_on_gives_the_same_scores(monkeypatch, photo_folder, tmp_path):
    from rali_zoo.scoring import sink

    monkeypatch.setattr(sink, "PART", 2)
    monkeypatch.setattr(command, "MANY", 1)
    folder = photo_folder(6)[0].parent
    path = save_scorer(network(), tmp_path / "model.safetensors")
    words = ["score", str(folder), f"--model={path}", "--batch_size=2"]
    assert main([*words, f"--output={tmp_path / 'whole.csv'}"]) == 0
    finish = sink.Sink.add

    def stopped(self, part, start, scores):
        if part:
            raise KeyboardInterrupt
        finish(self, part, start, scores)

    with monkeypatch.context() as patch:
        patch.setattr(sink.Sink, "add", stopped)
        with pytest.raises(KeyboardInterrupt):
            command.command([str(folder)], str(path), tmp_path / "cut.csv", batch_size=2)
    command.command([str(folder)], str(path), tmp_path / "cut.csv", batch_size=2)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_nothing_heavy_is_imported_for_few_images(photo_folder):
    image = str(photo_folder(1)[0])
    code = (
        "import sys; from rali_zoo.cli.main import main; assert main(['score', sys.argv[1]]) == 0; "
        "print([m for m in ('onnx', 'onnxruntime', 'onnxscript', 'torch.onnx', 'rali_zoo.export') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, image], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
