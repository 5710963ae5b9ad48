"""Eight-bit networks: quantised with images of a labelled data set, and measured on it.

What is quantised: weights and activations of the encoder's convolutions and matrix products, weights by
channel. What is not: the fixed front end of ``rali:`` encoders, whose logarithms need the small values; and
the head with its prototypes, which is a thousandth of the work. In ONNX Runtime the ranges of convolutions
are fixed by the calibration images and those of matrix products are found anew for every input, which is
the faster of its two ways for transformers; OpenVINO has fixed ranges only. Weights keep 7 bits, because
chips without VNNI would overflow with 8.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rali_zoo.backbones.tiny import LogEnergy
from rali_zoo.data.images import load_views
from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError, near_miss
from rali_zoo.export import onnx as onnx_files
from rali_zoo.export import openvino as openvino_files
from rali_zoo.export.graph import INPUT, exportable, get_header, set_header, trace
from rali_zoo.metrics.evaluation import evaluate

if TYPE_CHECKING:
    import onnx
    import pandas as pd

    from rali_zoo.data.tables import DataTable
    from rali_zoo.models.scorer import NetworkScorer

Format = Literal["onnx", "openvino"]
_ENCODER = "/module.backbone.net."
_CALIBRATION_BATCH = 4
_CONVOLUTIONS, _PRODUCTS = ("Conv",), ("MatMul", "Gemm")


@dataclass(frozen=True)
class Change:
    """What quantisation did to a scorer on the labelled images of a data set.

    Attributes:
        n: images that both networks scored.
        srcc: SRCC before and after.
        plcc: PLCC before and after, without a fitted mapping.
        largest: largest absolute difference of an image's score, in MOS units of [1, 5].
    """

    n: int
    srcc: tuple[float, float]
    plcc: tuple[float, float]
    largest: float

    @property
    def loss(self) -> float:
        """The larger of the losses of SRCC and PLCC; negative if both rose."""
        return max(self.srcc[0] - self.srcc[1], self.plcc[0] - self.plcc[1])

    def __str__(self) -> str:
        rows = (
            f"{name} {before:.4f} -> {after:.4f} ({after - before:+.4f})"
            for name, (before, after) in (("SRCC", self.srcc), ("PLCC", self.plcc))
        )
        return f"{', '.join(rows)} on {self.n} images; a score moved by up to {self.largest:.3f}"


def export_int8(
    scorer: NetworkScorer,
    path: str | Path,
    table: DataTable,
    kind: Format = "onnx",
    max_loss: float = 0.01,
    calibration_images: int = 64,
    test_images: int = 500,
    any_size: bool = False,
) -> Change:
    """Write an eight-bit network, unless it scores worse than it may.

    Args:
        scorer: with a RALI or a Regression.
        path: file to write, ``.onnx`` or ``.xml``.
        table: a labelled data set; ranges come from its ``train`` rows (else ``val``), the measurement is on
            its ``test`` rows.
        kind: the runtime it is for.
        max_loss: largest loss of SRCC or PLCC that is accepted.
        calibration_images: how many images the ranges come from, evenly spread over their rows.
        test_images: how many images are measured on, likewise; 0 = all.
        any_size: leave height and width free.

    Returns:
        The change that was measured.

    Raises:
        ConfigError: the loss is larger (nothing is written), the data set has no labelled test rows or
            nothing to calibrate with, or the scorer has nothing to quantise.
        MissingExtraError: a library of the extra ``onnx`` or ``openvino`` is not installed.
    """
    path, files = Path(path), _files(kind)
    onnx_files.check_suffix(path, files.SUFFIX)
    calibration = table.split("train") if len(table.split("train")) else table.split("val")
    test = table.split("test")
    test = _spread(test[test["mos"].notna()], test_images)
    if len(calibration) == 0 or len(test) < 3:
        raise ConfigError(
            f"'{table.ref}' has {len(calibration)} training or validation images and {len(test)} test "
            "images with a MOS; calibration needs the first, measuring the second"
        )
    batches = list(_batches(scorer, _spread(calibration, calibration_images)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        written = Path(folder) / path.name
        files.write(quantise(trace(scorer, any_size), batches, kind), written)
        change = compare(scorer, files.as_scorer(files.load_module(written, threads=1), str(path)), test)
        if not change.loss <= max_loss:  # also false for NaN
            raise ConfigError(f"int8 loses more than max_loss={max_loss:g} on '{table.ref}': {change}")
        files.move(written, path)
    return change


def _files(kind: str) -> Any:
    known = {"onnx": onnx_files, "openvino": openvino_files}
    if kind not in known:
        raise ConfigError(f"unknown format {kind!r}. {near_miss(kind, get_args(Format))}")
    return known[kind]


def _spread(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most ``count`` rows, evenly spaced; 0 = all."""
    if count <= 0 or len(frame) <= count:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, count).round().astype(int)]


def _batches(scorer: NetworkScorer, frame: pd.DataFrame) -> Iterator[np.ndarray]:
    """(B, 3, H, W) batches of the images, cut as for scoring; undecodable ones are left out.

    Raises:
        ConfigError: none of them can be read.
    """
    module, kept = exportable(scorer), []
    for path in frame["path"]:
        try:
            view = load_views(path, module.view, module.preprocess).numpy()
        except ImageDecodeError:
            continue
        kept += list(view if view.ndim == 4 else view[None])
    if not kept:
        raise ConfigError("no calibration image can be read; rali-zoo show DATASET says where they belong")
    for start in range(0, len(kept), _CALIBRATION_BATCH):
        part = kept[start : start + _CALIBRATION_BATCH]
        # Images of a view without a size differ in shape.
        yield from [np.stack(part)] if len({v.shape for v in part}) == 1 else [v[None] for v in part]


def compare(before: NetworkScorer, after: NetworkScorer, frame: pd.DataFrame) -> Change:
    """Score the labelled images with two scorers.

    Args:
        before: the reference.
        after: the scorer that is judged.
        frame: columns ``path`` and ``mos`` in [1, 5].

    Raises:
        ConfigError: fewer than three images got a score from both.
    """
    import pandas as pd

    paths = frame["path"].tolist()
    first, second = before.score(paths), after.score(paths)
    both = [a.error is None and b.error is None for a, b in zip(first, second, strict=True)]
    if sum(both) < 3:
        raise ConfigError(f"only {sum(both)} of {len(paths)} test images were scored: {first[0].error}")
    mos = frame["mos"].to_numpy(float)[both]
    values = [np.array([s.score for s, ok in zip(x, both, strict=True) if ok]) for x in (first, second)]
    one, two = (evaluate(pd.DataFrame({"mos": mos, "score": v, "error": ""})) for v in values)
    return Change(
        n=sum(both),
        srcc=(one["srcc"], two["srcc"]),
        plcc=(one["plcc"], two["plcc"]),
        largest=float(np.abs(values[0] - values[1]).max()),
    )


class _Reader:
    """Calibration batches, one at a time, as onnxruntime asks for them."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by input name, or ``None``."""
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def quantise(proto: onnx.ModelProto, batches: list[np.ndarray], kind: Format) -> onnx.ModelProto:
    """Quantise a graph of :func:`~rali_zoo.export.graph.trace`.

    Args:
        proto: the graph in float32.
        batches: (B, 3, H, W) float32 images in [0, 1].
        kind: the runtime it is for.

    Raises:
        ConfigError: no convolution or matrix product of an encoder is in the graph.
    """
    convolutions, products = _nodes(proto, _CONVOLUTIONS), _nodes(proto, _PRODUCTS)
    if not convolutions and not products:
        raise ConfigError("this network has no convolution or matrix product that could be quantised")
    header = get_header(proto, "the graph")
    if kind == "openvino":
        quantised = _static(proto, convolutions + products, batches)
    else:
        quantised = _static(proto, convolutions, batches) if convolutions else proto
        quantised = _dynamic(quantised, products) if products else quantised
    set_header(quantised, replace(header, precision="int8"))
    return quantised


def _nodes(proto: onnx.ModelProto, kinds: tuple[str, ...]) -> list[str]:
    """Names of the encoder's nodes of some kinds that have constant weights."""
    constant = {tensor.name for tensor in proto.graph.initializer}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in kinds
        and node.input[1] in constant
        and _ENCODER in node.doc_string
        and LogEnergy.__name__ not in node.doc_string
    ]


def _static(proto: onnx.ModelProto, nodes: list[str], batches: list[np.ndarray]) -> onnx.ModelProto:
    library = _library()
    return _written(
        library.quantize_static,
        proto,
        calibration_data_reader=_Reader(batches),
        quant_format=library.QuantFormat.QDQ,
        activation_type=library.QuantType.QUInt8,
        weight_type=library.QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=[*_CONVOLUTIONS, *_PRODUCTS],
        nodes_to_quantize=nodes,
    )


def _dynamic(proto: onnx.ModelProto, nodes: list[str]) -> onnx.ModelProto:
    library = _library()
    return _written(
        library.quantize_dynamic,
        proto,
        weight_type=library.QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=list(_PRODUCTS),
        # A Gemm becomes a MatMul of another name before it is looked up.
        nodes_to_quantize=[*nodes, *(f"{name}_MatMul" for name in nodes)],
    )


def _written(function: Any, proto: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """Call a quantiser, which goes from file to file (a graph in memory it would change)."""
    import onnx

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx_files.write(proto, source)
        function(source, target, **options)
        return onnx.load(target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to optimise the graph first, which would lose where its nodes come from."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _library() -> Any:
    try:
        from onnxruntime import quantization
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    return quantization
