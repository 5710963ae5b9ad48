"""Trained scorers by reference: ``ckpt:``, ``local-dir:``, ``hf-hub:``, or a zoo name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import CheckpointError
from rali_zoo.registry import Table
from rali_zoo.uri import Uri, parse_uri

if TYPE_CHECKING:
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
            folder with one named model.safetensors), ``hf-hub:ORG/REPO[@REV]``, or a zoo name.
        device: where to compute, e.g. ``cuda``; the CPU by default.

    Raises:
        UriError: a reference that cannot be read.
        CheckpointError: a file that is missing, incomplete, or not a scorer of ours.
    """
    from rali_zoo.models.files import build, load_checkpoint, read_scorer
    from rali_zoo.models.scorer import ModuleScorer

    uri = parse_uri(ref, SCHEMES, "model", MODELS)
    if not uri.scheme:
        uri = parse_uri(MODELS[uri.id], SCHEMES, "model")
    uri.take(())
    if uri.scheme == "ckpt":
        module = load_checkpoint(uri.id)
    else:
        module = build(*read_scorer(_file(uri)), source=str(uri))
    return ModuleScorer(module, ref, device)


def _file(uri: Uri) -> Path:
    if uri.scheme == "hf-hub":
        return _from_hub(uri.id)
    path = Path(uri.id)
    return path / "model.safetensors" if path.is_dir() else path


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repository, "model.safetensors", revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"hf-hub:{name}: model.safetensors could not be fetched ({type(error).__name__}); "
            "without a network, copy the file here and use local-dir:PATH"
        ) from error
