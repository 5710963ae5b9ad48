"""Scorers to export: the one in the package, and small random ones of other families."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from export_toys import CLIP_SIDE, fill_prototypes, random_images

import rali_zoo
from rali_zoo.models.rali import RALINetwork
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.models.scorer import NetworkScorer


@pytest.fixture(scope="session", autouse=True)
def _trace_once() -> Iterator[None]:
    """Trace every network once a session, which takes seconds; all else is done anew in every test."""
    from rali_zoo.export import graph, int8, onnx, openvino

    traced: dict[tuple[object, ...], bytes] = {}

    def trace(scorer: NetworkScorer, any_size: bool = False) -> object:
        import onnx as library

        key = (scorer.revision, scorer.preprocess_id, any_size)
        if key not in traced:
            traced[key] = graph.trace(scorer, any_size).SerializeToString()
        return library.load_from_string(traced[key])

    with pytest.MonkeyPatch.context() as patch:
        for module in (int8, onnx, openvino):
            patch.setattr(module, "trace", trace)
        yield


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str, str], str]:
    """Reference of the export of a fixture's scorer: ``exported("tiny", "onnx")``; written once a session."""
    from rali_zoo.export.onnx import export_onnx
    from rali_zoo.export.openvino import export_openvino

    found: dict[tuple[str, str], str] = {}

    def make(name: str, kind: str) -> str:
        pytest.importorskip("onnxscript")
        pytest.importorskip("openvino" if kind == "openvino" else "onnxruntime")
        if (name, kind) not in found:
            path = tmp_path_factory.mktemp(name) / {"onnx": "scorer.onnx", "openvino": "scorer.xml"}[kind]
            write = export_onnx if kind == "onnx" else export_openvino
            write(request.getfixturevalue(name), path)
            found[name, kind] = f"{kind}:{path}"
        return found[name, kind]

    return make


@pytest.fixture(scope="session")
def tiny() -> NetworkScorer:
    """The scorer that the package carries."""
    return rali_zoo.load_model("rali-tiny-synthetic")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> NetworkScorer:
    """A RALI on a small random CLIP of transformers, with more room for prototypes than it fills."""
    import transformers as tf

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = tf.CLIPVisionConfig(**vision, image_size=CLIP_SIDE, patch_size=8, projection_dim=24)
    tf.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    tf.CLIPImageProcessor(
        size={"shortest_edge": CLIP_SIDE}, crop_size={"height": CLIP_SIDE, "width": CLIP_SIDE}
    ).save_pretrained(folder)
    module = RALINetwork(f"hf:local-dir:{folder}", projector="none", prototypes=9, pca_dim=10).eval()
    with torch.no_grad():
        module.backbone.net.vision_model.embeddings.patch_embedding.weight.mul_(40)  # so that images differ
    fill_prototypes(module, random_images(6, CLIP_SIDE, CLIP_SIDE))
    module.training_sets = ("koniq10k",)
    return NetworkScorer(module, "clip")


@pytest.fixture(scope="session")
def regression() -> NetworkScorer:
    """A random Regression: scores only, no prototypes."""
    torch.manual_seed(0)
    return NetworkScorer(RegressionNetwork("rali:tiny", hidden=16), "regression")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Reference of 24 training and 24 test images of graded noise, with scores to match."""
    import pandas as pd
    from PIL import Image

    folder = tmp_path_factory.mktemp("labelled")
    images = random_images(48, 160, 160, seed=5)
    rows = []
    for i, image in enumerate(images):
        pixels = (image * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "mos": 100 - 2 * i, "split": "train" if i % 2 else "test"})
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    return f"csv:{folder / 'scores.csv'}?mos_range=0,100"
