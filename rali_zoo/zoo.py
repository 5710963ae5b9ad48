"""Trained scorers by reference: ``ckpt:``, ``local-dir:``, ``hf-hub:``, or a zoo name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import CheckpointError
from rali_zoo.registry import Table
from rali_zoo.uri import Uri, parse_uri

if TYPE_CHECKING:
    from rali_zoo.models.base import IQAModule
    from rali_zoo.models.scorer import ModuleScorer

#: The checkpoint of configs/quickstart/rali_synthetic.yaml: trained on synthetic labels only.
TINY_SYNTHETIC = f"local-dir:{Path(__file__).parent / 'weights' / 'rali_tiny_synthetic.safetensors'}"

#: name to the reference of its weights; rows of plug-ins point to such a string too
MODELS = Table("model", "rali_zoo.models", {"rali-tiny-synthetic": "rali_zoo.zoo:TINY_SYNTHETIC"})

SCHEMES = ("ckpt", "local-dir", "hf-hub")


def list_models() -> list[str]:
    """Names that :func:`load_model` knows without a scheme."""
    return list(MODELS)


def load_model(ref: str, device: str | None = None) -> ModuleScorer:
    """Load a trained scorer.

    Args:
        ref: ``ckpt:PATH`` (a Lightning checkpoint of ``fit``), ``local-dir:PATH`` (a scorer file, or a
            folder with one named model.safetensors or with the files of the released RALI),
            ``hf-hub:ORG/REPO[/FOLDER][@REV]`` (the same on the hub), or a zoo name.
        device: where to compute, e.g. ``cuda``; the CPU by default.

    Raises:
        UriError: a reference that cannot be read.
        CheckpointError: a file that is missing, incomplete, or not a scorer of ours.
    """
    from rali_zoo.models.scorer import ModuleScorer

    uri = parse_uri(ref, SCHEMES, "model", MODELS)
    if not uri.scheme:
        uri = parse_uri(MODELS[uri.id], SCHEMES, "model")
    uri.take(())
    return ModuleScorer(_module(uri), ref, device)


def _module(uri: Uri) -> IQAModule:
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

    from rali_zoo.models.files import SCORER_FILE
    from rali_zoo.models.official import FILES

    place, _, revision = name.partition("@")
    owner, _, rest = place.partition("/")
    repository, _, folder = rest.strip("/").partition("/")
    try:
        if not folder:
            return Path(hf_hub_download(place, SCORER_FILE, revision=revision or None))
        wanted = [f"{folder}/{file}" for file in (SCORER_FILE, *FILES)]
        found = snapshot_download(f"{owner}/{repository}", revision=revision or None, allow_patterns=wanted)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        files = f"the files of {folder}" if folder else SCORER_FILE
        raise CheckpointError(
            f"hf-hub:{name}: {files} could not be fetched ({type(error).__name__}); "
            "without a network, copy what is there to this machine and use local-dir:PATH"
        ) from error
    if not (Path(found) / folder).is_dir():
        raise CheckpointError(f"hf-hub:{name}: {owner}/{repository} has no scorer in a folder {folder!r}")
    return Path(found) / folder
