"""``pyiqa:NAME``: the metrics of IQA-PyTorch, through its public interface.

pyiqa is under the PolyForm Noncommercial licence and is an optional extra; nothing of it is copied here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from typing import Any

import torch

from rali_zoo.baselines.base import Facts, Frozen, MetricScorer, networks_in
from rali_zoo.baselines.fetching import fetching
from rali_zoo.baselines.pyiqa_facts import BYTES_A_PIXEL, CORRECTED, OFFLINE, REFUSED, training_sets
from rali_zoo.data.readers.options import truth
from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError, UnknownNameError
from rali_zoo.uri import Uri

_MOST_BYTES = 8 * 2**30  # what one image may take
LICENCE = "PolyForm-Noncommercial-1.0.0"


def load(uri: Uri, device: str | None = None) -> MetricScorer:
    """Load a metric of pyiqa; sign and range are those of its metadata.

    Args:
        uri: ``pyiqa:NAME``; with ``?trust_pickle=true`` also weights are read that may run code.
        device: where to compute; the CPU by default.

    Raises:
        MissingExtraError: pyiqa, or a library that the metric wants, is not installed.
        UnknownNameError: pyiqa has no such metric.
        ConfigError: the metric does not score one image, or cannot run here.
        WeightsUnavailableError: its weights are neither on this machine nor to be had.
    """
    trust = truth(str(uri), uri.take(("trust_pickle",)), "trust_pickle", default=False)
    ref, name = f"{uri.scheme}:{uri.id}", uri.id
    config = _configs().get(name)
    if config is None:
        raise UnknownNameError("metric of pyiqa", name, list_metrics())
    if name in REFUSED:
        raise ConfigError(f"{ref!r} does not score an image by itself: {REFUSED[name]}")
    from pyiqa import create_metric

    where = torch.device(device or "cpu")
    with redirect_stdout(sys.stderr):
        if name in OFFLINE:
            metric = Frozen(create_metric(name, device=where))
        else:
            with _llama_watched(ref), fetching(ref, "pyiqa", trust):
                metric = Frozen(create_metric(name, device=where))
    facts = facts_of(name, config)

    def alone(image: torch.Tensor, _: object) -> torch.Tensor:
        needed = BYTES_A_PIXEL.get(name, 0) * image.shape[-1] * image.shape[-2]
        if needed > _MOST_BYTES:
            raise ImageDecodeError(
                f"{ref} takes {needed / 2**30:.0f} GiB of memory for an image of {image.shape[-1]}x{image.shape[-2]}; "
                f"not computed above {_MOST_BYTES / 2**30:.0f} GiB"
            )
        return metric(image)

    return MetricScorer(
        facts,
        metric if facts.needs_reference else alone,
        device=where,
        networks=networks_in(metric),
    )


def facts_of(name: str, config: Mapping[str, object]) -> Facts:
    """What pyiqa's metadata say of a metric."""
    config = {**config, **CORRECTED.get(name, {})}
    return Facts(
        name=f"pyiqa:{name}",
        version=f"pyiqa-{version('pyiqa')}",
        licence=LICENCE,
        needs_reference=config["metric_mode"] == "FR",
        lower_better=bool(config.get("lower_better", False)),
        value_range=_range(str(config.get("score_range", ""))),
        training_sets=training_sets(name),
    )


def list_metrics(offline: bool = False) -> list[str]:
    """Names of the metrics that score an image; ``offline``: of those that need no weights."""
    return sorted(OFFLINE) if offline else sorted(set(_configs()) - set(REFUSED))


def _range(text: str) -> tuple[float, float] | None:
    """``"~0, ~100"`` as two numbers; ``None`` unless both ends are stated."""
    parts = [part.strip().removeprefix("~") for part in text.split(",")]
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        return None
    return low, high


@contextmanager
def _llama_watched(ref: str) -> Iterator[None]:
    """Give transformers its Llama back where loading fails, and warn where it is replaced.

    Importing pyiqa's Q-Align and Compare2Score puts their own Llama into transformers, for every other model
    of this process too, even if their weights then cannot be had. ``benchmark`` runs them in a process of
    their own.
    """
    from transformers.models.llama import configuration_llama, modeling_llama

    classes = (modeling_llama.LlamaModel, modeling_llama.LlamaForCausalLM)
    before = [(part, dict(vars(part))) for part in (configuration_llama, modeling_llama)]
    forwards = [(kind, kind.forward) for kind in classes]
    try:
        yield
    except BaseException:
        for part, names in before:
            for name, value in names.items():
                setattr(part, name, value)
        for kind, forward in forwards:
            kind.forward = forward  # type: ignore[method-assign]
        raise
    if any(kind.forward is not forward for kind, forward in forwards):
        warnings.warn(
            f"{ref} has replaced transformers' Llama in this process: load no other language model beside it",
            stacklevel=2,
        )


def _configs() -> Mapping[str, Mapping[str, Any]]:
    try:
        with redirect_stdout(sys.stderr):
            from pyiqa.default_model_configs import DEFAULT_CONFIGS
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "pyiqa", "pyiqa") from error
    return DEFAULT_CONFIGS
