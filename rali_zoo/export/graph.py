"""A trained scorer as one ONNX graph: pixels in, scores and prototype weights out, facts in its metadata."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rali_zoo.errors import CheckpointError, ConfigError, MissingExtraError
from rali_zoo.models.base import BackboneNetwork
from rali_zoo.models.rali import RALINetwork
from rali_zoo.models.scorer import NetworkScorer
from rali_zoo.types import Batch, Preprocess
from rali_zoo.views import View

if TYPE_CHECKING:
    import onnx

#: Key of the header in the metadata of an exported file.
KEY = "rali_zoo"
INPUT = "image"
AXES = ("batch", "channels", "height", "width")
OUTPUTS = ("score", "std", "weights")
#: Largest difference between an exported score and torch's that an export is written with.
TOLERANCE = 1e-4
_OPSET = 20
_PROTOBUF_LIMIT = 2**31


@dataclass(frozen=True)
class Header:
    """What a scorer needs beside its network; travels inside the exported file as json.

    Attributes:
        model: class of the module that was exported.
        revision: hash of the weights it was exported from.
        training_sets: references of the data sets it was trained on.
        view: how images are cut, fields of :class:`~rali_zoo.views.View`.
        preprocess: what the network expects, fields of :class:`~rali_zoo.types.Preprocess`.
        size: (height, width) that the graph takes; ``None`` = any.
        outputs: names of the graph's outputs, of ``score`` (B,), ``std`` (B,) and ``weights`` (B, K).
        precision: ``fp32`` or ``int8``.
        prototypes: of each prototype its score in [1, 5] and the descriptions nearest to it.
    """

    model: str
    revision: str
    training_sets: list[str]
    view: dict[str, Any]
    preprocess: dict[str, Any]
    size: list[int] | None
    outputs: list[str]
    precision: str = "fp32"
    prototypes: list[tuple[float, list[str]]] = field(default_factory=list)

    def to_json(self) -> str:
        """One line of json."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None, source: str) -> Header:
        """Undo :meth:`to_json`; raises :class:`CheckpointError` for a file that is not ours."""
        try:
            return cls(**json.loads(text or "null"))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"{source} carries no rali_zoo header: it was not written by 'rali-zoo export'"
            ) from error


class ScoreGraph(nn.Module):
    """What is exported: (B, 3, H, W) pixels in [0, 1] to ``score`` (B,) and what else there is."""

    def __init__(self, module: BackboneNetwork) -> None:
        super().__init__()
        module = copy.deepcopy(module).cpu().eval()
        if isinstance(module, RALINetwork):
            # A flag that Python branches on cannot be a tensor while the graph is traced.
            del module._buffers["ready"]
            object.__setattr__(module, "ready", True)
        self.module = module

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) images to the outputs that the module has, (B, …) each, as in :data:`OUTPUTS`."""
        out = self.module.predict_batch(Batch(image=image))
        found = (getattr(out, name) for name in OUTPUTS)
        return tuple(value for value in found if value is not None)


def exportable(scorer: NetworkScorer) -> BackboneNetwork:
    """The network of a scorer that is torch's, pixels to score; raises :class:`ConfigError` for another."""
    if not isinstance(scorer.network, BackboneNetwork):
        raise ConfigError(
            f"{scorer.name!r} is no image encoder with a head in torch, such as RALI or Regression; "
            "give one as ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO or a name of 'rali-zoo list models'"
        )
    return scorer.network


def graph_size(module: BackboneNetwork, any_size: bool) -> tuple[int, int] | None:
    """(height, width) of what a module's view cuts, or ``None`` for any.

    Raises:
        ConfigError: a view that leaves images at their own size, and a graph of one size.
    """
    if any_size:
        return None
    resized = module.view.resized(module.preprocess)
    if resized is not None and resized.resize == "none":
        raise ConfigError(f"{module.view} keeps the size of every image: add --any_size")
    return module.view.size_for(module.preprocess)


def make_header(module: BackboneNetwork, size: tuple[int, int] | None, outputs: list[str]) -> Header:
    """Facts of a module, of a graph that takes ``size`` and has ``outputs``."""
    prototypes: list[tuple[float, list[str]]] = []
    if isinstance(module, RALINetwork):
        texts = module.prototype_texts
        scores = module.scores.detach().clamp(1, 5).tolist()
        prototypes = [(s, texts[i] if i < len(texts) else []) for i, s in enumerate(scores)]
    return Header(
        model=type(module).__name__,
        revision=module.revision,
        training_sets=list(module.training_sets),
        view=asdict(module.view),
        preprocess=asdict(module.preprocess),
        size=None if size is None else list(size),
        outputs=outputs,
        prototypes=prototypes,
    )


def example(module: BackboneNetwork, size: tuple[int, int] | None, batch: int = 2, seed: int = 0) -> Tensor:
    """(batch, 3, H, W) random smooth images; of another shape than the module's own if any is taken.

    Args:
        module: what they are for.
        size: (H, W) if the graph takes no other; ``None`` = any.
        batch: images.
        seed: of the draw.
    """
    height, width = size or (module.preprocess.size[0], module.preprocess.size[1] + 32)
    coarse = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = torch.rand(smooth.shape, generator=torch.Generator().manual_seed(seed + 1)) - 0.5
    return (smooth + 0.1 * noise).clamp(0, 1)


def trace(scorer: NetworkScorer, any_size: bool = False) -> onnx.ModelProto:
    """Make the graph of a scorer with torch's dynamo exporter; the number of images is free.

    Args:
        scorer: with a RALI or a Regression.
        any_size: leave height and width free too, for networks that allow it.

    Raises:
        ConfigError: a scorer without a graph; a network that has but one input size; more than 2 GB.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    module = exportable(scorer)
    if sum(p.numel() * 4 for p in module.parameters()) >= _PROTOBUF_LIMIT:
        raise ConfigError(f"{scorer.name} has 2 GB of weights or more, which one ONNX file cannot hold")
    size, graph = graph_size(module, any_size), ScoreGraph(module)
    image = example(module, size)
    with torch.no_grad():
        names = _present(graph.module.predict_batch(Batch(image=image)))
    dynamic = {0: torch.export.Dim("batch")}
    if any_size:
        dynamic |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        import onnxscript  # noqa: F401 (torch needs it and says so less plainly)

        with quiet():
            program: Any = torch.onnx.export(
                graph,
                (image,),
                input_names=[INPUT],
                output_names=names,
                opset_version=_OPSET,
                dynamic_shapes=(dynamic,),
                dynamo=True,
                verbose=False,
            )
    except ImportError:
        raise MissingExtraError("onnxscript", "onnx") from None
    except Exception as error:  # the exporter raises many kinds
        hint = "; leave --any_size out: this network has one input size" if any_size else ""
        raise ConfigError(f"{scorer.name} cannot be traced by torch.onnx{hint}: {_reason(error)}") from error
    proto: onnx.ModelProto = program.model_proto
    _drop_traces(proto)
    _name_axes(proto)
    set_header(proto, make_header(module, size, names))
    return proto


def _present(prediction: Any) -> list[str]:
    return [name for name in OUTPUTS if getattr(prediction, name) is not None]


def _reason(error: BaseException) -> str:
    """Last line of the error at the root of the exporter's chain, which quotes whole tracebacks."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's progress and advice; its errors are raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _drop_traces(proto: onnx.ModelProto) -> None:
    """Remove stack traces, which hold paths of this machine; where a node stands in the network stays."""
    for node in proto.graph.node:
        scopes = [p.value for p in node.metadata_props if p.key == "namespace"]
        del node.metadata_props[:]
        node.doc_string = scopes[0] if scopes else ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]


def _name_axes(proto: onnx.ModelProto) -> None:
    """Call the free axes of an image what they are; the exporter calls those it has found itself ``s73``."""
    found = {
        axis.dim_param: name
        for axis, name in zip(proto.graph.input[0].type.tensor_type.shape.dim, AXES, strict=True)
        if axis.dim_param
    }
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:  # may be a formula, such as ((s73 // 32))
                axis.dim_param = re.sub(r"\w+", lambda word: found.get(word[0], word[0]), axis.dim_param)


def set_header(proto: onnx.ModelProto, header: Header) -> None:
    """Write (or replace) the header of a graph."""
    kept = [(p.key, p.value) for p in proto.metadata_props if p.key != KEY]
    del proto.metadata_props[:]
    for key, value in (*kept, (KEY, header.to_json())):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def get_header(proto: onnx.ModelProto, source: str) -> Header:
    """The header of a graph; raises :class:`CheckpointError` if it has none."""
    found = {p.key: p.value for p in proto.metadata_props}
    return Header.from_json(found.get(KEY), source)


def view_of(header: Header) -> View:
    """How the images of a graph are cut."""
    return View.from_state(header.view)


def preprocess_of(header: Header) -> Preprocess:
    """What the network of a graph expects."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header.preprocess.items()}
    return Preprocess(**values)
