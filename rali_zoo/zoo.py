"""Scorers by reference: ``ckpt:``, ``local-dir:``, ``hf-hub:``, a zoo name, or somebody else's metric."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rali_zoo.baselines import BASELINES
from rali_zoo.errors import CheckpointError, ConfigError, UnknownNameError
from rali_zoo.paths import SHIPPED
from rali_zoo.registry import Table
from rali_zoo.types import Runtime
from rali_zoo.uri import Uri, parse_uri

if TYPE_CHECKING:
    from rali_zoo.baselines.base import MetricScorer
    from rali_zoo.baselines.csv import TableScorer
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.scorer import NetworkScorer
    from rali_zoo.models.vlm import VLMNetwork

#: The checkpoint of configs/photo/photo.yaml; benchmarks/studies/photo.py makes it.
PHOTO = f"local-dir:{SHIPPED['photo']}"
#: The checkpoint of configs/quickstart/from_scratch.yaml.
RALI_TINY = f"local-dir:{SHIPPED['rali-tiny-synthetic']}"
#: Those of configs/reasoner/release_tiny_1_vision.yaml and release_tiny_2_cold_start.yaml.
REGRESSION_TINY = f"local-dir:{SHIPPED['regression-tiny-synthetic']}"
REASONER_TINY = f"local-dir:{SHIPPED['reasoner-tiny-synthetic']}"

#: name to the reference of its weights; rows of plug-ins point to such a string too
MODELS = Table(
    "model",
    "rali_zoo.models",
    {
        "photo": "rali_zoo.zoo:PHOTO",
        "photo-small": "rali_zoo.zoo:PHOTO",  # a larger one was no better: docs/photographs.md
        "rali-tiny-synthetic": "rali_zoo.zoo:RALI_TINY",
        "regression-tiny-synthetic": "rali_zoo.zoo:REGRESSION_TINY",
        "reasoner-tiny-synthetic": "rali_zoo.zoo:REASONER_TINY",
    },
)

#: What ``score``, ``serve`` and ``app`` take where no model is named.
DEFAULT_MODEL = "photo"
_BY_SUFFIX = {
    ".ckpt": "ckpt",
    ".safetensors": "local-dir",
    ".onnx": "onnx",
    ".xml": "openvino",
    ".csv": "csv",
}

#: models of ours; those of :data:`~rali_zoo.baselines.BASELINES` are somebody else's
SCHEMES = ("ckpt", "local-dir", "hf-hub")

#: scheme of an exported file, or of a vision-language model that rates in words, to the module whose
#: ``load(uri, device)`` returns a scorer
RUNTIMES = Table(
    "runtime",
    "rali_zoo.runtimes",
    {
        "onnx": "rali_zoo.export.onnx",
        "openvino": "rali_zoo.export.openvino",
        "levels": "rali_zoo.models.levels",
    },
)


class Trained(Protocol):
    """A trainer, as :func:`load_model` sees it."""

    @property
    def network(self) -> IQANetwork:
        """What scores."""
        ...


def list_models() -> list[str]:
    """Names that :func:`load_model` knows without a scheme."""
    return list(MODELS)


def load_model(
    ref: str | IQANetwork | Trained, device: str | None = None, runtime: Runtime = "torch"
) -> NetworkScorer | MetricScorer | TableScorer:
    """Load a scorer: a model of ours, or somebody else's metric.

    Args:
        ref: ``ckpt:PATH`` (a Lightning checkpoint of ``fit``), ``local-dir:PATH`` (a scorer file, or a
            folder with one named model.safetensors or with the files of the released RALI),
            ``hf-hub:ORG/REPO[/FOLDER][@REV]`` (the same on the hub), a zoo name,
            ``onnx:PATH.onnx[?threads=N]`` or ``openvino:PATH.xml[?threads=N]`` (written by 'rali-zoo
            export'), ``levels:hf:ORG/MODEL`` (a vision-language model that rates in the words of a
            scale), ``pyiqa:NAME``, ``piq:NAME``, ``torchmetrics:NAME``, ``classic:NAME``, or ``csv:PATH``
            (scores computed elsewhere); the path of a file that is there needs no scheme. Or a network, or the
            trainer that has trained it.
        device: where to compute, e.g. ``cuda``; the CPU by default.
        runtime: what encodes images on a CPU: ``torch``; ``onnx`` = ONNX Runtime (extra ``onnx``), two to three
            times faster for convolutional networks; ``auto`` = the latter where it can. The network must not be
            changed afterwards (hooks of the encoder are not called).

    Raises:
        UriError: a reference that cannot be read.
        ConfigError: a device that this machine does not have; ``onnx`` for what ONNX Runtime cannot compute.
        CheckpointError: a file that is missing, incomplete, or not a scorer of ours.
        WeightsUnavailableError: the weights of a metric are neither here nor to be had.
        UnknownNameError: no such metric.
        MissingExtraError: the metric's library is not installed.
    """
    scorer = _in_memory(ref, device) if not isinstance(ref, str) else _load(with_scheme(ref), device)
    if runtime != "torch":
        from rali_zoo.models.scorer import NetworkScorer

        if isinstance(scorer, NetworkScorer):
            RUNTIMES["onnx"].use(scorer, runtime)
        elif runtime == "onnx":
            raise ConfigError(f"runtime='onnx' is for models of rali_zoo; {scorer.name} is none")
    return scorer


def _load(ref: str, device: str | None) -> NetworkScorer | MetricScorer | TableScorer:
    uri = parse_uri(ref, (*SCHEMES, *RUNTIMES, *BASELINES), "model", MODELS)
    if uri.scheme in RUNTIMES:
        return RUNTIMES[uri.scheme].load(uri, device)  # type: ignore[no-any-return]
    if device is not None:
        from rali_zoo.models.scorer import checked_device

        checked_device(device)  # before anything is fetched or built
    if uri.scheme in BASELINES:
        return BASELINES[uri.scheme].load(uri, device)  # type: ignore[no-any-return]
    from rali_zoo.models.scorer import NetworkScorer

    if not uri.scheme:
        uri = parse_uri(MODELS[uri.id], SCHEMES, "model")
    uri.take(())
    return NetworkScorer(_network(uri), ref, device)


def _in_memory(model: IQANetwork | Trained, device: str | None) -> NetworkScorer:
    from rali_zoo.models.base import IQANetwork
    from rali_zoo.models.scorer import NetworkScorer

    network = getattr(model, "network", model)
    if not isinstance(network, IQANetwork):
        raise ConfigError(
            f"load_model takes a reference such as 'ckpt:PATH', a network or its trainer, not a {type(model).__name__}"
        )
    return NetworkScorer(network, type(model).__name__, device)


def with_scheme(ref: str) -> str:
    """A reference; of a file or folder that is there, the one that its suffix stands for."""
    path = Path(ref)
    if ref in MODELS or not path.exists():
        return ref
    return f"{'local-dir' if path.is_dir() else _BY_SUFFIX.get(path.suffix, 'local-dir')}:{ref}"


def load_ours(ref: str, device: str | None = None) -> NetworkScorer:
    """As :func:`load_model`; raises :class:`ConfigError` for somebody else's metric."""
    from rali_zoo.models.scorer import NetworkScorer

    scorer = load_model(ref, device)
    if not isinstance(scorer, NetworkScorer):
        raise ConfigError(
            f"{ref!r} is somebody else's metric; this takes a model of rali_zoo (a scorer file)"
        )
    return scorer


def load_reasoner(
    ref: str, prompt: str = "score-short", device: str | None = None, others: Iterable[str] = ()
) -> VLMNetwork:
    """A reasoner in evaluation mode.

    Args:
        ref: a trained one (``ckpt:``, ``local-dir:``, ``hf-hub:``, a zoo name), or any vision-language model
            (``hf:ORG/REPO``, ``hf:local-dir:FOLDER``).
        prompt: the question to a model given as ``hf:``; a trained reasoner brings its own.
        device: where to compute; the CPU if ``None``.
        others: what else the caller takes in its place, for the near miss.

    Raises:
        UnknownNameError: no such model.
        ConfigError: a model that writes no texts.
    """
    from rali_zoo.models.vlm import VLMNetwork

    scheme = ref.partition(":")[0]
    if scheme in ("hf", "rali"):
        return VLMNetwork(ref, prompt).eval().to(device or "cpu")
    if scheme not in SCHEMES and ref not in MODELS:
        raise UnknownNameError(
            "model", ref, [*others, *MODELS, *(f"{s}:…" for s in (*SCHEMES, "hf", "rali"))]
        )
    network = load_ours(ref, device).network
    if not isinstance(network, VLMNetwork):
        raise ConfigError(
            f"{ref} is a {type(network).__name__}, which gives scores only; this needs a Reasoner"
        )
    return network


def _network(uri: Uri) -> IQANetwork:
    from rali_zoo.models.files import SCORER_FILE, build, load_checkpoint, read_scorer
    from rali_zoo.models.official import is_official, load_official

    if uri.scheme == "ckpt":
        return load_checkpoint(uri.id)
    path = _from_hub(uri.id) if uri.scheme == "hf-hub" else Path(uri.id)
    if path.is_dir() and not (path / SCORER_FILE).exists() and is_official(path):
        return load_official(path)
    return build(*read_scorer(path / SCORER_FILE if path.is_dir() else path), source=str(uri))


def _from_hub(name: str) -> Path:
    """Download a scorer file, or from a folder of a repository whatever of a scorer is there."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from rali_zoo.backbones.weights import hub
    from rali_zoo.models.files import SCORER_FILE
    from rali_zoo.models.official import FILES

    place, _, revision = name.partition("@")
    owner, _, rest = place.partition("/")
    repository, _, folder = rest.strip("/").partition("/")
    try:
        with hub():
            if not folder:
                return Path(hf_hub_download(place, SCORER_FILE, revision=revision or None))
            wanted = [f"{folder}/{file}" for file in (SCORER_FILE, *FILES)]
            found = snapshot_download(
                f"{owner}/{repository}", revision=revision or None, allow_patterns=wanted
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        files = f"the files of {folder}" if folder else SCORER_FILE
        raise CheckpointError(
            f"hf-hub:{name}: {files} could not be fetched ({type(error).__name__}); "
            "without a network, copy what is there to this machine and use local-dir:PATH"
        ) from error
    if not (Path(found) / folder).is_dir():
        raise CheckpointError(f"hf-hub:{name}: {owner}/{repository} has no scorer in a folder {folder!r}")
    return Path(found) / folder
