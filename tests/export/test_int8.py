"""Quantised networks: measured, and refused beyond the stated loss."""

from __future__ import annotations

import pytest
from export_toys import random_images

import rali_zoo
from rali_zoo.cli.main import main
from rali_zoo.data.tables import load_table
from rali_zoo.errors import ConfigError

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from rali_zoo.export import int8
from rali_zoo.export.int8 import Change, compare, export_int8, quantise  # noqa: E402


def check(tiny, labelled, change, ref, weights):
    """The file scores as it was said to, and is smaller than float32."""
    exported = rali_zoo.load_model(ref)
    assert exported.network.header.precision == "int8"
    again = compare(tiny, exported, load_table(labelled).split("test"))
    assert again == change and change.n == 24
    assert abs(change.loss) <= 0.05 and 0 < change.largest < 0.3
    assert weights.stat().st_size < 0.8 * 4 * sum(p.numel() for p in tiny.network.parameters())


def test_openvino_int8_is_smaller_near_and_measured(tiny, labelled, tmp_path):
    pytest.importorskip("openvino")
    change = export_int8(tiny, tmp_path / "a.xml", load_table(labelled), "openvino", max_loss=0.05)
    check(tiny, labelled, change, f"openvino:{tmp_path / 'a.xml'}", tmp_path / "a.bin")


def test_the_command_prints_what_it_did(tiny, labelled, tmp_path, capsys, monkeypatch):
    changes = []
    monkeypatch.setattr(int8, "compare", lambda *given: changes.append(compare(*given)) or changes[-1])
    words = ["export", "--model=rali-tiny-synthetic", f"--output={tmp_path / 'a.onnx'}"]
    assert main([*words, "--int8", f"--calibration={labelled}", "--max_loss=0.05"]) == 0
    said = capsys.readouterr().out
    assert str(changes[0]) in said and f"--model onnx:{tmp_path / 'a.onnx'}" in said
    check(tiny, labelled, changes[0], f"onnx:{tmp_path / 'a.onnx'}", tmp_path / "a.onnx")
    assert main(words) == 0
    assert "largest difference to torch's scores" in capsys.readouterr().out
    assert main([*words, "--int8"]) == 1
    assert "go together" in capsys.readouterr().err


def test_what_a_change_says():
    change = Change(n=100, srcc=(0.9, 0.88), plcc=(0.91, 0.92), largest=0.25)
    assert change.loss == pytest.approx(0.02)
    assert str(change) == (
        "SRCC 0.9000 -> 0.8800 (-0.0200), PLCC 0.9100 -> 0.9200 (+0.0100) on 100 images; "
        "a score moved by up to 0.250"
    )


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_a_transformer_is_quantised_and_its_head_is_not(clip, kind, tmp_path):
    pytest.importorskip(kind)
    proto = int8.trace(clip)
    products = [node for node in proto.graph.node if node.op_type in ("MatMul", "Gemm")]
    heads = [node.name for node in products if "backbone" not in node.doc_string]
    images = random_images(6, 32, 32)
    quantised = quantise(proto, [images.numpy()], kind)
    assert proto == int8.trace(clip)  # what was given stays as it is
    left = [node for node in quantised.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert heads and set(heads) <= {node.name for node in left}
    if kind == "onnx":
        # Besides the head, products of two activations stay: attention's.
        constant = {tensor.name for tensor in quantised.graph.initializer}
        assert all(node.name in heads or node.input[1] not in constant for node in left)
    files = int8._files(kind)
    files.write(quantised, tmp_path / f"a{files.SUFFIX}")
    module = files.load_module(tmp_path / f"a{files.SUFFIX}", threads=1)
    change = (module(images) - clip.network(images)).abs().max()
    assert 0 < change < 0.5


def test_beyond_the_stated_loss_nothing_is_written(tiny, labelled, tmp_path, capsys):
    words = ["export", "--model=rali-tiny-synthetic", f"--output={tmp_path / 'a.onnx'}", "--int8"]
    assert main([*words, f"--calibration={labelled}", "--max_loss=-0.5"]) == 1
    said = capsys.readouterr().err
    assert "int8 loses more than max_loss=-0.5" in said and "SRCC" in said and "PLCC" in said
    assert list(tmp_path.iterdir()) == []


def test_data_without_test_rows_are_refused(tiny, labelled, tmp_path):
    import pandas as pd

    file = labelled.removeprefix("csv:").split("?")[0]
    frame = pd.read_csv(file).assign(split="train")
    frame.to_csv(file.replace("scores.csv", "only_train.csv"), index=False)
    table = load_table(labelled.replace("scores.csv", "only_train.csv"))
    with pytest.raises(ConfigError, match="0 test images"):
        export_int8(tiny, tmp_path / "a.onnx", table)
