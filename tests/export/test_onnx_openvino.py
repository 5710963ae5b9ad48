"""Exported files against torch: equal scores, the same facts, and errors that say what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import rali_zoo
from rali_zoo.errors import CheckpointError, ConfigError, UriError
from rali_zoo.models.regression import RegressionNetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.types import Batch
from rali_zoo.views import View

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from rali_zoo.export.graph import KEY, TOLERANCE, _name_axes  # noqa: E402
from rali_zoo.export.onnx import check_parity, export_onnx  # noqa: E402
from rali_zoo.export.openvino import export_openvino  # noqa: E402

#: Of scores in [1, 5]: sums are taken in another order.
CLOSE = 1e-5


def written(scorer, folder, kind, any_size=False):
    """Reference of an export of ``scorer``."""
    if kind == "openvino":
        pytest.importorskip("openvino")
        export_openvino(scorer, folder / "scorer.xml", any_size)
        return f"openvino:{folder / 'scorer.xml'}"
    export_onnx(scorer, folder / "scorer.onnx", any_size)
    return f"onnx:{folder / 'scorer.onnx'}"


CASES = [
    ("tiny", "onnx"),
    ("tiny", "openvino"),
    ("clip", "onnx"),
    ("clip", "openvino"),
    ("regression", "onnx"),
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_scores_and_weights_are_those_of_torch(name, kind, exported, request):
    source, runtime = request.getfixturevalue(name), rali_zoo.load_model(exported(name, kind))
    size = source.network.preprocess.size
    for count in (1, 5):  # the number of images is free
        image = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            expected = source.network.predict_batch(Batch(image=image))
        found = runtime.network.predict_batch(Batch(image=image))
        assert torch.allclose(found.score, expected.score, rtol=0, atol=CLOSE)
        assert (found.weights is None) == (expected.weights is None) == (found.std is None)
        if expected.weights is not None:
            assert found.weights.shape == expected.weights.shape
            assert torch.allclose(found.weights, expected.weights, rtol=0, atol=2e-5)
            # A difference of squares near 25: where it is nearly nothing its root is mostly rounding.
            assert torch.allclose(found.std**2, expected.std**2, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_files_of_any_shape_score_as_with_torch(name, kind, exported, request, photo):
    source, runtime = request.getfixturevalue(name), rali_zoo.load_model(exported(name, kind) + "?threads=1")
    images = [photo(90, 70), photo(33, 200, 1), b"no image", photo(170, 170, 2)]
    found, expected = runtime.score(images), source.score(images)
    assert [s.error for s in found] == [s.error for s in expected]
    pairs = [(a.score, b.score) for a, b in zip(found, expected, strict=True) if a.error is None]
    assert len(pairs) == 3 and np.allclose(*zip(*pairs, strict=True), rtol=0, atol=CLOSE)
    assert runtime.training_sets == source.training_sets
    assert runtime.network.header.revision == source.revision != runtime.revision
    assert runtime.network.view == source.network.view
    assert runtime.network.preprocess == source.network.preprocess


def test_free_axes_are_called_what_they_are():
    """The exporter calls those it has found out itself ``s73``."""
    onnx = pytest.importorskip("onnx")
    image, maps = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", ["batch", 3, "s73", "s21"]), ("maps", ["batch", 8, "((s73 // 32))", 4]))
    )
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [image], [maps]))
    _name_axes(proto)
    named = [
        [a.dim_param or a.dim_value for a in v.type.tensor_type.shape.dim]
        for v in (*proto.graph.input, *proto.graph.output)
    ]
    assert named == [["batch", 3, "height", "width"], ["batch", 8, "((height // 32))", 4]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_any_size_where_the_network_allows_it(tiny, kind, tmp_path):
    exported = rali_zoo.load_model(written(tiny, tmp_path, kind, any_size=True)).network
    if kind == "onnx":
        import onnx

        (given,) = onnx.load(tmp_path / "scorer.onnx").graph.input
        axes = given.type.tensor_type.shape.dim
        assert [a.dim_param or a.dim_value for a in axes] == ["batch", 3, "height", "width"]
    for size in ((160, 160), (77, 203), (256, 40)):
        image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert torch.allclose(exported(image), tiny.network(image), rtol=0, atol=CLOSE)


@pytest.mark.slow
def test_a_network_of_one_size_is_not_exported_for_any(clip, tmp_path):
    with pytest.raises(ConfigError, match="leave --any_size out"):
        export_onnx(clip, tmp_path / "a.onnx", any_size=True)
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_size_are_said(exported):
    runtime = rali_zoo.load_model(exported("tiny", "onnx")).network
    with pytest.raises(ConfigError, match=r"takes \(B, 3, 160, 160\), not \(1, 3, 96, 96\)"):
        runtime(torch.rand(1, 3, 96, 96))


@pytest.mark.slow
def test_several_views_are_averaged_as_in_torch(regression, tmp_path, photo):
    module = RegressionNetwork("rali:tiny", hidden=16)
    module.load_state_dict(regression.network.state_dict())
    module.view = View("multi", size=64, crops=3)
    scorer = NetworkScorer(module, "multi")
    exported = rali_zoo.load_model(written(scorer, tmp_path, "onnx"))
    images = [photo(120, 150), photo(200, 90, 1)]
    found, expected = ([s.score for s in x.score(images)] for x in (exported, scorer))
    assert np.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_native_sizes_need_any_size(regression, tmp_path, photo):
    module = RegressionNetwork("rali:tiny?resize=none", hidden=16)
    module.load_state_dict(regression.network.state_dict())
    scorer = NetworkScorer(module, "native")
    with pytest.raises(ConfigError, match="add --any_size"):
        export_onnx(scorer, tmp_path / "a.onnx")
    exported = rali_zoo.load_model(written(scorer, tmp_path, "onnx", any_size=True))
    images = [photo(90, 70), photo(50, 110, 1)]
    found, expected = ([s.score for s in x.score(images)] for x in (exported, scorer))
    assert np.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_descriptions_travel_and_paths_do_not(clip, kind, tmp_path):
    runtime = rali_zoo.load_model(written(clip, tmp_path, kind)).network
    assert runtime.prototype_texts[:6] == clip.network.prototype_texts
    weights = torch.tensor([[0.0, 0.0, 1.0, 0, 0, 0, 0, 0, 0]])
    assert runtime.explain(weights, 1) == clip.network.explain(weights, 1)
    written_bytes = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"site-packages" not in written_bytes and b"rali_zoo/models" not in written_bytes
    assert str(tmp_path.parent).encode() not in written_bytes


def test_the_metadata_are_plain_json(tiny, exported):
    import onnx

    proto = onnx.load(exported("tiny", "onnx").removeprefix("onnx:"))
    onnx.checker.check_model(proto)
    header = json.loads({p.key: p.value for p in proto.metadata_props}[KEY])
    assert header["training_sets"] == ["synthetic:lab"] and header["revision"] == tiny.revision
    assert header["size"] == [160, 160] and header["precision"] == "fp32"
    assert [o.name for o in proto.graph.output] == ["score", "std", "weights"]


def test_an_export_that_differs_is_refused(tiny, regression, exported):
    """The check compares with another network's scores, which it must notice."""
    runtime = rali_zoo.load_model(exported("tiny", "onnx")).network
    assert check_parity(tiny, runtime) < 1e-5 < TOLERANCE
    with pytest.raises(ConfigError, match="differ from torch's by"):
        check_parity(regression, runtime)


@pytest.mark.parametrize(
    ("ref", "error", "says"),
    [
        ("onnx:{}/none.onnx", CheckpointError, "no file"),
        ("onnx:{}/text.onnx", CheckpointError, "no ONNX file that can be opened"),
        ("onnx:{}/foreign.onnx", CheckpointError, "no rali_zoo header"),
        ("onnx:{}/text.onnx?threads=many", UriError, "whole number"),
        ("onnx:{}/text.onnx?cores=2", UriError, "no option 'cores'"),
        ("openvino:{}/none.xml", CheckpointError, "no file"),
        ("openvino:{}/text.xml", CheckpointError, "no OpenVINO network"),
    ],
)
def test_bad_files_and_options_are_said(ref, error, says, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    if ref.startswith("openvino"):
        pytest.importorskip("openvino")
    for name in ("text.onnx", "text.xml", "text.bin"):
        (tmp_path / name).write_text("no network")
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(error, match=says):
        rali_zoo.load_model(ref.format(tmp_path))


def test_exports_compute_on_the_cpu_and_are_not_exported_again(tiny, tmp_path):
    ref = written(tiny, tmp_path, "onnx")
    with pytest.raises(ConfigError, match="computes on the CPU"):
        rali_zoo.load_model(ref, "cuda")
    with pytest.raises(ConfigError, match="no image encoder with a head in torch"):
        export_onnx(rali_zoo.load_model(ref), tmp_path / "b.onnx")
    with pytest.raises(ConfigError, match="ends in .onnx"):
        export_onnx(tiny, tmp_path / "b.bin")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scorer.onnx"]  # nothing half written
