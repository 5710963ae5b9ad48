"""ONNX files of scorers: ``export_onnx`` writes one, ``onnx:PATH[?threads=N]`` scores with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from rali_zoo.errors import CheckpointError, ConfigError, MissingExtraError
from rali_zoo.export.graph import INPUT, KEY, TOLERANCE, Header, example, exportable, trace
from rali_zoo.export.runtime import ExportedNetwork, Run, as_scorer, check_device, threads_of
from rali_zoo.paths import atomic_path
from rali_zoo.types import Runtime
from rali_zoo.uri import Uri

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from rali_zoo.models.scorer import NetworkScorer


SUFFIX = ".onnx"


def export_onnx(scorer: NetworkScorer, path: str | Path, any_size: bool = False) -> float:
    """Write a scorer as one ONNX file in float32 and check it against torch.

    Input ``image`` (B, 3, H, W) in [0, 1], not normalised; outputs ``score`` (B,) in [1, 5] and, where the
    scorer has them, ``std`` (B,) and ``weights`` (B, K). Several views of an image are so many rows.

    Args:
        scorer: with a RALI or a Regression.
        path: file to write, ``.onnx``.
        any_size: leave height and width free, for networks that allow it.

    Returns:
        Largest absolute difference to torch's scores on made-up images.

    Raises:
        ConfigError: another suffix; what :func:`~rali_zoo.export.graph.trace` refuses; a difference above
            :data:`~rali_zoo.export.graph.TOLERANCE`.
    """
    path = Path(path)
    check_suffix(path, SUFFIX)
    with atomic_path(path) as temporary:
        write(trace(scorer, any_size), temporary)
        return check_parity(scorer, load_module(temporary, threads=1))


def check_suffix(path: Path, suffix: str) -> None:
    """Refuse a file name that its reader would not take."""
    if path.suffix != suffix or path.is_dir():
        raise ConfigError(f"output {str(path)!r}: give a file that ends in {suffix}")


def move(source: Path, target: Path) -> None:
    """Give a file its final name."""
    os.replace(source, target)


def write(proto: onnx.ModelProto, path: Path) -> None:
    """Write a graph as one file."""
    path.write_bytes(proto.SerializeToString())


def check_parity(scorer: NetworkScorer, exported: ExportedNetwork) -> float:
    """Largest difference of scores to torch's on the CPU, in more than one batch size and, if any is taken, shape.

    Raises:
        ConfigError: it is above :data:`~rali_zoo.export.graph.TOLERANCE`, or not a number.
    """
    import torch

    module = exportable(scorer)
    size = cast("tuple[int, int] | None", tuple(exported.header.size) if exported.header.size else None)
    worst, home = 0.0, module.device
    module.to("cpu")  # where the other computes: a GPU rounds otherwise
    try:
        for batch, seed in ((1, 1), (3, 2)):
            image = example(module, size, batch, seed)
            if size is None and batch == 1:
                image = image.transpose(2, 3)
            with torch.inference_mode():
                expected = module(image)
            worst = max(worst, float(np.abs(exported(image).numpy() - expected.numpy()).max()))
    finally:
        module.to(home)
    if not worst <= TOLERANCE:  # also false for NaN
        raise ConfigError(
            f"the exported network's scores differ from torch's by {worst:.2g}, more than {TOLERANCE:g}"
        )
    return worst


def load_module(path: Path, threads: int) -> ExportedNetwork:
    """Open an exported file in ONNX Runtime.

    Raises:
        CheckpointError: missing, damaged, or not written by :func:`export_onnx`.
        MissingExtraError: onnxruntime is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path}; 'rali-zoo export' writes it")
    session = open_session(str(path), str(path), threads)
    header = Header.from_json(session.get_modelmeta().custom_metadata_map.get(KEY), str(path))
    return ExportedNetwork(header, _run(session, header), (path,))


def open_session(graph: str | bytes, name: str, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph in ONNX Runtime, on the CPU.

    Args:
        graph: path of a file, or its content.
        name: of the graph, for the message.
        threads: of the computation.

    Raises:
        CheckpointError: no graph that can be opened.
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait by spinning take the cores away from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each status
        raise CheckpointError(f"{name} is no ONNX file that can be opened: {error}") from error


def _run(session: onnxruntime.InferenceSession, header: Header) -> Run:
    names = header.outputs

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: image}), strict=True))

    return run


def use(scorer: NetworkScorer, runtime: Runtime) -> bool:
    """Let ONNX Runtime encode the images of a scorer of ours; see :func:`rali_zoo.export.encoder.use_onnx`."""
    from rali_zoo.export.encoder import use_onnx

    return use_onnx(scorer, runtime)


def load(uri: Uri, device: str | None = None) -> NetworkScorer:
    """Open ``onnx:PATH[?threads=N]``; see :func:`rali_zoo.zoo.load_model`."""
    check_device(uri, device)
    return as_scorer(load_module(Path(uri.id), threads_of(uri)), str(uri))
