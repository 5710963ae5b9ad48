"""Networks as files: Lightning checkpoints read safely, and scorers as one safetensors file."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Required, TypedDict

from rali_zoo.errors import CheckpointError, ConfigError, RaliZooError, near_miss
from rali_zoo.models import NETWORKS
from rali_zoo.paths import SHIPPED, atomic_path

if TYPE_CHECKING:
    from torch import Tensor

    from rali_zoo.models.base import IQANetwork

SCORER_FILE = "model.safetensors"
#: What a checkpoint of 0.1.0 lacks: there, the trainer was the network.
PREFIX = "network."


def network_name(network: type[IQANetwork]) -> str:
    """How files name a class of networks: its row in :data:`~rali_zoo.models.NETWORKS`, else its module and name."""
    place = f"{network.__module__}:{network.__qualname__}"
    return next((name for name in NETWORKS if NETWORKS.target(name) == place), place)


def network_class(name: str, source: str) -> type[IQANetwork]:
    """The class that a file names. Nothing is imported because a file says so.

    Args:
        name: as :func:`network_name` gives it.
        source: the file, for the message.

    Raises:
        CheckpointError: neither a row of :data:`~rali_zoo.models.NETWORKS` nor a class that is imported already.
    """
    if name in NETWORKS:
        return NETWORKS[name]  # type: ignore[no-any-return]
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None) if attribute else None
    from rali_zoo.models.base import IQANetwork

    if not (isinstance(found, type) and issubclass(found, IQANetwork)):
        raise CheckpointError(
            f"{source}: unknown network {name!r}, and a file cannot have code imported. Name its module yourself with "
            f"--plugin {module or 'MODULE'}, or install a package with the entry point "
            f"rali_zoo.networks. {near_miss(name, NETWORKS)}"
        )
    return found


#: what every checkpoint of ours holds; Required alone is not seen at run time, as annotations are texts here
_REQUIRED = ("state_dict", "rali_zoo")


class Checkpoint(TypedDict, total=False):
    """What a Lightning checkpoint holds that is read here."""

    state_dict: Required[dict[str, Tensor]]
    rali_zoo: Required[dict[str, object]]
    hyper_parameters: dict[str, object]
    datamodule_hyper_parameters: dict[str, object]


def read_checkpoint(path: str) -> Checkpoint:
    """Read a Lightning checkpoint without running code from it.

    Raises:
        CheckpointError: missing, damaged, or not written by rali_zoo.
    """
    import torch

    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}; fit writes them to RUN/checkpoints/")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, and all mean the same to the user
        raise CheckpointError(f"{path} is no checkpoint that can be read safely: {error}") from error
    parts: dict[str, object] = checkpoint if isinstance(checkpoint, dict) else {}
    for name in Checkpoint.__annotations__:
        part = parts.get(name, None if name in _REQUIRED else {})
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise CheckpointError(f"{path} was not written by rali_zoo: it has no {name}")
    return checkpoint  # type: ignore[no-any-return]


def load_checkpoint(path: str) -> IQANetwork:
    """The network of a trained model.

    Args:
        path: of a Lightning checkpoint or of a scorer file (.safetensors), or the name of a scorer that the
            package carries.

    Raises:
        CheckpointError: not such a file, an unknown network, or weights that do not fit the settings.
    """
    if path in SHIPPED or path.endswith(".safetensors"):
        file = SHIPPED.get(path, Path(path))
        return build(*read_scorer(file), str(file))
    checkpoint = read_checkpoint(path)
    state, saved = checkpoint["state_dict"], checkpoint["rali_zoo"]
    if "network" in saved:
        weights = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
        return build(_mapping(saved["network"], path), weights, path)
    hparams = checkpoint.get("hyper_parameters", {})
    return build({"class": saved.get("class"), "hparams": hparams, "extra": saved}, state, path)


def describe(network: IQANetwork) -> dict[str, object]:
    """What a file holds of a network beside its weights: class, settings, extra state; plain values."""
    header: dict[str, object] = {
        "class": network_name(type(network)),
        "settings": network.settings,
        "extra": network.extra_state(),
    }
    recipe = network.recipe()
    return header if recipe is None else {**header, "backbone": recipe}


def build(header: Mapping[str, object], weights: Mapping[str, object], source: str) -> IQANetwork:
    """Make a network of what was saved of it; pretrained weights are not asked for.

    Args:
        header: of :func:`describe`, or of 0.1.0 with the hyperparameters of a training as ``hparams``.
        weights: state dict.
        source: where they come from, for messages.

    Raises:
        CheckpointError: a header that is not ours, an unknown network, or weights that do not fit the settings.
    """
    from rali_zoo.models.base import weights_follow

    name = header.get("class")
    if not isinstance(name, str):
        raise CheckpointError(f"{source}: its header names no network; it was not written by rali_zoo")
    kind = network_class(name, source)
    try:
        if "settings" in header:
            settings = _mapping(header["settings"], source)
        else:
            settings = kind.upgrade(_mapping(header["hparams"], source))
            weights = {k: v for k, v in weights.items() if not k.startswith(kind.only_trained)}
        inspect.signature(kind).bind(**settings)
        if (
            "settings" in header
            and "backbone" not in header
            and ":local-dir:" in str(settings.get("backbone"))
        ):
            raise CheckpointError(
                f"{source} names {settings['backbone']!r}, a folder of the machine that wrote it, and nothing is read "
                "because a file says so. Train with a named architecture and ?checkpoint=FILE, which a file holds whole"
            )
        with ExitStack() as stack:
            stack.enter_context(weights_follow())
            if "backbone" in header:
                from rali_zoo.backbones.base import rebuilding

                stack.enter_context(rebuilding(_mapping(header["backbone"], source)))
            network = kind(**settings)
        check_weights(network, weights, source)
        network.load_state_dict(weights)
        network.load_extra_state(_mapping(header["extra"], source))
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError, RaliZooError) as error:
        if source in str(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{source} does not fit its own settings: {' '.join(lines)[:600]}") from error
    return network.eval()


def _mapping(value: object, source: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CheckpointError(f"{source}: its header has {str(value)[:60]!r} where names and values belong")
    return value


def check_weights(network: IQANetwork, weights: Mapping[str, object], source: str) -> None:
    """Refuse weights that would score wrongly.

    Args:
        network: that they are for.
        weights: by name.
        source: where they come from, for messages.

    Raises:
        CheckpointError: something that is no tensor, of another kind of number, or not finite.
    """
    import torch

    own = network.state_dict()
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{source}: {name} is no tensor")
        kinds = [t.dtype if not t.is_floating_point() else float for t in (value, own.get(name, value))]
        if kinds[0] != kinds[1]:  # torch would round or convert without a word
            raise CheckpointError(
                f"{source}: {name} is of {value.dtype}, which is no type for {own[name].dtype}"
            )
        valid = ~torch.isnan(value) if name in network.infinite else torch.isfinite(value)
        if not bool(valid.all()):
            raise CheckpointError(f"{source}: {name} has values that are not finite")


def read_scorer(path: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Header and weights of a scorer file.

    Raises:
        CheckpointError: missing, not safetensors, or without our header.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"no scorer at {path}; expected a {SCORER_FILE} written by rali_zoo")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("rali_zoo", "null"))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    if header is None:
        raise CheckpointError(f"{path} has no rali_zoo header: it was not written by rali_zoo")
    return _mapping(header, str(path)), weights


def save_scorer(
    network: IQANetwork, path: str | Path, precision: Literal["float32", "float16"] = "float32"
) -> Path:
    """Write a network as one safetensors file: weights, settings, view, training sets, descriptions.

    A file that is half written never has the final name.

    Args:
        network: or a trainer that holds one.
        path: where to; ends in .safetensors.
        precision: of weights in the file; a network computes in float32 again once it is loaded. ``float16``
            halves the file; vectors (biases and statistics) stay as they are.

    Raises:
        ConfigError: settings that no file can hold, or weights beyond the range of float16.
    """
    from safetensors.torch import save_file

    network = getattr(network, "network", network)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
    if precision == "float16":
        state = {k: _halved(k, v) for k, v in state.items()}
    header = json.dumps(describe(network))
    path = Path(path)
    with atomic_path(path) as temporary:
        save_file(state, str(temporary), metadata={"rali_zoo": header})
    return path


def _halved(name: str, value: Tensor) -> Tensor:
    """A matrix or kernel in float16; anything else as it is."""
    if not value.is_floating_point() or value.ndim < 2:
        return value
    half = value.half()
    if not bool(half.isfinite().all()):
        raise ConfigError(f"{name} has values beyond the range of float16; keep it in float32")
    return half
