"""A scorer's image encoder in ONNX Runtime: the same features in less time on a CPU; the head stays torch's.

The graph is made once for an encoder's weights, in about a second, and kept in the cache folder.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rali_zoo.backbones.weights import first_line
from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.export.graph import INPUT, quiet
from rali_zoo.models.base import BackboneNetwork
from rali_zoo.paths import atomic_path, cache_dir, text_sha256
from rali_zoo.types import Runtime
from rali_zoo.uri import without_option

if TYPE_CHECKING:
    from rali_zoo.backbones.base import Backbone
    from rali_zoo.models.scorer import NetworkScorer

log = logging.getLogger(__name__)

#: Largest difference of a score in [1, 5] to torch's, on the first batch.
TOLERANCE = 1e-5
#: Bytes of weights above which ``auto`` keeps torch: networks of that size are matrix products, which are no slower
#: there, and a second copy costs memory.
LARGEST = 2**29
_CHECKSUM = hashlib.sha256().digest_size
_OPSET = 18

Run = Callable[[Tensor], Tensor]


def use_onnx(scorer: NetworkScorer, runtime: Runtime) -> bool:
    """Let ONNX Runtime encode the images of a scorer; whether it does from now on.

    The first batch is encoded by torch too; where a score differs by more than :data:`TOLERANCE`, torch goes on and a
    warning says so. So it does for weights that are changed afterwards, and images of another size.

    Args:
        scorer: changed in place.
        runtime: ``auto`` leaves a scorer alone that cannot do so, or an onnxruntime that is not installed; ``torch``
            any.

    Raises:
        ConfigError: ``onnx``, and a network or a device that ONNX Runtime is not for.
        MissingExtraError: ``onnx``, and onnxruntime is not installed.
    """
    if runtime == "torch":
        return False
    try:
        network = _fitting(scorer, runtime)
        run = _open(_graph(network.backbone, runtime))
    except Exception as error:  # the exporter and ONNX Runtime raise many kinds
        if runtime == "onnx":
            raise
        if not isinstance(error, ConfigError | MissingExtraError):
            log.warning("%s is computed by torch, not ONNX Runtime: %s", scorer.name, first_line(error))
        return False
    scorer.encode = CheckedEncoder(scorer.name, network, run)
    return True


class CheckedEncoder:
    """Features by a graph that gave torch's scores on the first batch, else by torch.

    Args:
        name: of the scorer, for the warning.
        network: whose encoder the graph is.
        run: (B, 3, H, W) images to (B, D) features.
    """

    def __init__(self, name: str, network: BackboneNetwork, run: Run) -> None:
        self.name, self.network, self.run = name, network, run
        self.size = network.view.size_for(network.preprocess)
        self.equal: bool | None = None  # unknown before the first batch
        self._weights = self._state()

    def _state(self) -> list[tuple[int, int]]:
        """Changes when a weight does."""
        backbone = self.network.backbone
        return [(t.data_ptr(), t._version) for t in (*backbone.parameters(), *backbone.buffers())]

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) or (B, V, 3, H, W) images in [0, 1] to (B, D) or (B, V, D)."""
        if self.equal is False or tuple(image.shape[-2:]) != self.size or self._state() != self._weights:
            return self.network.encode(image)
        try:
            features = self.run(image.flatten(0, -4)).unflatten(0, image.shape[:-3])
        except Exception as error:  # ONNX Runtime has a class for each status
            return self._torch(image, first_line(error))
        if self.equal is None:
            own = self.network.encode(image)
            scores = [self.network.predict_features(x.flatten(0, -2)).score for x in (features, own)]
            apart = float((scores[0] - scores[1]).abs().max())
            if not apart <= TOLERANCE:  # also for NaN
                return self._torch(image, f"a score differs by {apart:.2g}, more than {TOLERANCE:g}")
            self.equal = True
        return features

    def _torch(self, image: Tensor, why: str) -> Tensor:
        """By torch, from now on."""
        self.equal = False
        log.warning("%s is computed by torch, not ONNX Runtime: %s", self.name, why)
        return self.network.encode(image)


def _fitting(scorer: NetworkScorer, runtime: Runtime) -> BackboneNetwork:
    """The network of a scorer that ONNX Runtime can encode for; raises :class:`ConfigError` for another."""
    network, why = scorer.network, ""
    if not isinstance(network, BackboneNetwork):
        why = f"{scorer.name} is no image encoder with a head"
    elif network.device.type != "cpu":
        why = f"it computes on the CPU here, not on {network.device}"
    elif scorer.autocast is not None or network.backbone._compiled_call_impl is not None:
        why = "it replaces --precision bfloat16 and --compile; leave them out"
    elif (resized := network.view.resized(network.preprocess)) is not None and resized.resize == "none":
        why = f"{network.view} keeps the size of every image, and a graph has one"
    elif runtime == "auto" and sum(p.numel() * 4 for p in network.parameters()) > LARGEST:
        why = "so large a network is as fast in torch"
    if why:
        raise ConfigError(f"--runtime onnx: {why}")
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError("onnxruntime", "onnx")
    return cast(BackboneNetwork, network)


def _graph(backbone: Backbone, runtime: Runtime) -> bytes:
    """The graph of an encoder, from the cache where it is there and whole."""
    import rali_zoo

    reference = without_option(without_option(backbone.uri, "checkpoint"), "weights")
    facts = (reference, backbone.weights_hash(), backbone.preprocess, torch.__version__, rali_zoo.__version__)
    key = text_sha256("|".join(map(str, facts)))[:32]
    path = cache_dir("onnx") / f"{key}.graph"
    if path.is_file():
        content = path.read_bytes()
        if hashlib.sha256(content[_CHECKSUM:]).digest() == content[:_CHECKSUM]:
            return content[_CHECKSUM:]
        log.warning("%s is damaged and made again", path)
    graph = make_graph(backbone, thorough=runtime == "onnx")
    with atomic_path(path) as temporary:
        temporary.write_bytes(hashlib.sha256(graph).digest() + graph)
    return graph


class _Encoder(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).cpu().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.backbone(image).pooled)


def make_graph(backbone: Backbone, thorough: bool = True) -> bytes:
    """An encoder as an ONNX graph: ``image`` (B, 3, H, W) in [0, 1] to ``features`` (B, D); B is free.

    Args:
        backbone: the encoder.
        thorough: where torch's old exporter, which takes a second, does not know an operation, try the new one, which
            takes a quarter of a minute.

    Raises:
        ConfigError: neither exporter can.
    """
    module, image = _Encoder(backbone).eval(), torch.rand(2, 3, *backbone.preprocess.size)
    names: Any = {"input_names": [INPUT], "output_names": ["features"], "opset_version": _OPSET}
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    # The fused operation of attention is no ONNX one.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), quiet():
            buffer = io.BytesIO()
            try:
                free = {name: {0: "batch"} for name in (INPUT, "features")}
                torch.onnx.export(
                    module, (image,), cast(Any, buffer), dynamic_axes=free, dynamo=False, **names
                )
                return buffer.getvalue()
            except Exception:  # it raises many kinds
                if not thorough:
                    raise
            shapes = ({0: torch.export.Dim("batch")},)
            program: Any = torch.onnx.export(
                module, (image,), dynamic_shapes=shapes, dynamo=True, verbose=False, **names
            )
            return bytes(program.model_proto.SerializeToString())
    except Exception as error:
        raise ConfigError(f"{backbone.uri} cannot be traced by torch.onnx: {first_line(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)


def _open(graph: bytes) -> Run:
    from rali_zoo.export.onnx import open_session

    session = open_session(graph, "the graph of the encoder", torch.get_num_threads())

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: image.detach().contiguous().numpy()})[0])

    return run
