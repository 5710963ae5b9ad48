"""OpenVINO files: ``export_openvino`` writes a pair, ``openvino:PATH[?threads=N]`` scores with it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rali_zoo.errors import CheckpointError, MissingExtraError
from rali_zoo.export.graph import INPUT, KEY, Header, get_header, trace
from rali_zoo.export.onnx import check_parity, check_suffix
from rali_zoo.export.runtime import ExportedNetwork, Run, as_scorer, check_device, threads_of
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    import onnx

    from rali_zoo.models.scorer import NetworkScorer


SUFFIX = ".xml"


def export_openvino(scorer: NetworkScorer, path: str | Path, any_size: bool = False) -> float:
    """Write a scorer as an OpenVINO network in float32 (``.xml`` and, beside it, ``.bin``); check it.

    Args:
        scorer: with a RALI or a Regression.
        path: file to write, ``.xml``.
        any_size: leave height and width free, for networks that allow it.

    Returns:
        Largest absolute difference to torch's scores on made-up images.

    Raises:
        ConfigError: as :func:`~rali_zoo.export.onnx.export_onnx`.
        MissingExtraError: openvino, onnx or onnxscript is not installed.
    """
    path = Path(path)
    check_suffix(path, SUFFIX)
    with _folder_beside(path) as folder:
        write(trace(scorer, any_size), Path(folder) / path.name)
        difference = check_parity(scorer, load_module(Path(folder) / path.name, threads=1))
        move(Path(folder) / path.name, path)
    return difference


def _folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")


def move(source: Path, target: Path) -> None:
    """Give a pair of files its final name; the network last, since it is what a reader asks for."""
    for suffix in (".bin", ".xml"):
        os.replace(source.with_suffix(suffix), target.with_suffix(suffix))


def write(proto: onnx.ModelProto, path: Path) -> None:
    """Convert an ONNX graph and write it, weights in the precision they have."""
    openvino = _library()
    header = get_header(proto, "the graph")
    model = openvino.Core().read_model(proto.SerializeToString())
    model.set_rt_info(header.to_json(), [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def load_module(path: Path, threads: int) -> ExportedNetwork:
    """Open an exported network in OpenVINO.

    Raises:
        CheckpointError: missing, damaged, or not written by :func:`export_openvino`.
        MissingExtraError: openvino is not installed.
    """
    openvino = _library()
    weights = path.with_suffix(".bin")
    for file in (path, weights):
        if not file.is_file():
            raise CheckpointError(f"no file {file}; 'rali-zoo export --format openvino' writes it")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # Chips with bfloat16 would use it unasked.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = openvino.Core().read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        header = Header.from_json(text, str(path))
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is no OpenVINO network that can be opened: {error}") from error
    return ExportedNetwork(header, _run(compiled, header), (path, weights))


def _run(compiled: Any, header: Header) -> Run:
    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        # A new request each time: its outputs belong to the caller, and threads do not share it.
        request = compiled.create_infer_request()
        found = request.infer({INPUT: image})
        return {name: np.array(found[name]) for name in header.outputs}

    return run


def _library() -> Any:
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "openvino") from None
    return openvino


def load(uri: Uri, device: str | None = None) -> NetworkScorer:
    """Open ``openvino:PATH[?threads=N]``; see :func:`rali_zoo.zoo.load_model`."""
    check_device(uri, device)
    return as_scorer(load_module(Path(uri.id), threads_of(uri)), str(uri))
