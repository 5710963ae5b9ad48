"""Scorers on the Hugging Face hub: one safetensors file and a model card made of what is known.

:func:`rali_zoo.load_model` reads what is written here (``local-dir:FOLDER``, ``hf-hub:ORG/REPO``).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rali_zoo.errors import ConfigError, RaliZooError, near_miss
from rali_zoo.export.graph import exportable
from rali_zoo.models.files import SCORER_FILE, save_scorer
from rali_zoo.models.rali import RALINetwork
from rali_zoo.paths import atomic_path
from rali_zoo.report import STATISTICS
from rali_zoo.uri import without_option
from rali_zoo.zoo import load_ours

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from rali_zoo.models.base import BackboneNetwork
    from rali_zoo.models.scorer import NetworkScorer

_SYNTHETIC = "synthetic:"

#: Reference of a test set to its numbers: ``n`` and any of :data:`rali_zoo.report.STATISTICS`.
Results = Mapping[str, Mapping[str, float]]


class HubError(RaliZooError, OSError):
    """The hub refused, or cannot be reached."""


def save_pretrained(
    scorer: NetworkScorer,
    folder: str | Path,
    licence: str,
    results: Results | None = None,
    notes: str = "",
    repo_id: str | None = None,
) -> Path:
    """Write a scorer and its model card into a folder.

    Args:
        scorer: with a RALI or a Regression.
        folder: made if it is absent; its ``model.safetensors`` and ``README.md`` are replaced.
        licence: of the weights, an identifier of the hub such as ``cc-by-4.0`` or ``other``. Data sets and
            backbones have licences that reach their weights; nothing is assumed.
        results: what was measured, by test set, e.g. ``{"koniq10k": {"n": 2010, "srcc": 0.9}}``; the card
            shows these numbers and no others.
        notes: a paragraph of your own, in markdown.
        repo_id: repository that the card's example names; the folder's name by default.

    Returns:
        The folder.

    Raises:
        ConfigError: no licence, results of unknown names or that are no finite numbers, or a scorer that is
            not ours.
    """
    folder = Path(folder)
    card = model_card(scorer, licence, results, notes, repo_id or folder.resolve().name)
    folder.mkdir(parents=True, exist_ok=True)
    save_scorer(exportable(scorer), folder / SCORER_FILE)
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    return folder


def push_to_hub(
    scorer: NetworkScorer,
    repo_id: str,
    licence: str,
    results: Results | None = None,
    notes: str = "",
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a rali_zoo scorer",
) -> str:
    """Write a scorer and its card into a repository of the hub, which is made if it is absent.

    Args:
        scorer: with a RALI or a Regression.
        repo_id: ``ORG/REPO``.
        licence: as for :func:`save_pretrained`.
        results: as for :func:`save_pretrained`.
        notes: as for :func:`save_pretrained`.
        private: whether a new repository is private.
        token: of the hub; the one of ``hf auth login`` by default.
        revision: branch; the main one by default.
        commit_message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        HubError: the hub refused, or cannot be reached.
        ConfigError: as :func:`save_pretrained`, or no such form of a name.
    """
    from huggingface_hub import HfApi

    # HTTPError is that of the library which the hub's client is built on; it has changed more than once.
    from huggingface_hub.errors import HFValidationError, HTTPError

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(scorer, folder, licence, results, notes, repo_id)
        try:
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            done = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=commit_message, revision=revision
            )
        except HFValidationError as error:
            raise ConfigError(f"{repo_id!r} is no name of a repository (ORG/REPO): {error}") from error
        except (HTTPError, OSError) as error:
            raise HubError(
                f"{repo_id}: the hub did not take it ({type(error).__name__}: {error}); "
                "'hf auth login' sets a token, save_pretrained writes the same files to a folder"
            ) from error
    return str(done)


def from_pretrained(
    name: str | Path, revision: str | None = None, device: str | None = None
) -> NetworkScorer:
    """Load what :func:`save_pretrained` or :func:`push_to_hub` wrote.

    Args:
        name: a folder, else ``ORG/REPO`` or ``ORG/REPO/FOLDER`` of the hub.
        revision: branch, tag or commit on the hub.
        device: where to compute; the CPU by default.

    Raises:
        CheckpointError: nothing there, or not a scorer of ours.
        ConfigError: a revision of a folder.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise ConfigError(f"{name} is a folder of this machine, which has no revision {revision!r}")
        return load_ours(f"local-dir:{name}", device)
    return load_ours(f"hf-hub:{name}" + (f"@{revision}" if revision else ""), device)


def model_card(scorer: NetworkScorer, licence: str, results: Results | None, notes: str, repo_id: str) -> str:
    """The card's text: metadata of the hub, what the scorer is, what was measured, what it cannot do.

    Args:
        scorer: a RALI or a Regression.
        licence: of the weights, as the hub abbreviates it.
        results: by data set, metrics by name; ``None`` = not measured.
        notes: further text in markdown; may be empty.
        repo_id: ``ORG/REPO``.

    Raises:
        ConfigError: no licence, or an unknown metric.
    """
    from huggingface_hub import ModelCard

    if not licence.strip():
        raise ConfigError("give the licence of the weights, e.g. cc-by-4.0, or other")
    results = results or {}
    _check(results)
    module = exportable(scorer)
    parts = [
        f"---\n{_metadata(module, licence, results, repo_id).to_yaml()}\n---",
        f"# {repo_id.rstrip('/').rpartition('/')[2]}",
        _about(module),
        notes.strip(),
        _usage(repo_id),
        _table(results),
        _limits(module, results),
    ]
    return str(ModelCard("\n\n".join(part for part in parts if part) + "\n"))


def _check(results: Results) -> None:
    for name, numbers in results.items():
        for metric, value in numbers.items():
            if metric not in (*STATISTICS, "n"):
                raise ConfigError(
                    f"results of {name!r}: unknown metric {metric!r}. {near_miss(metric, [*STATISTICS, 'n'])}"
                )
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"results of {name!r}: {metric} is {value!r}, not a finite number")


def _metadata(module: BackboneNetwork, licence: str, results: Results, repo_id: str) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    data = ModelCardData(
        license=licence,
        library_name="rali_zoo",
        tags=[
            "image-quality-assessment",
            "no-reference",
            type(module).__name__.removesuffix("Network").lower(),
        ],
    )
    found = [
        EvalResult(
            task_type="image-quality-assessment",
            dataset_type=name,
            dataset_name=_named(name),
            metric_type=metric,
            metric_name=STATISTICS[metric].label,
            metric_value=value,
        )
        for name, numbers in results.items()
        for metric, value in numbers.items()
        if metric in STATISTICS
    ]
    if found:
        data.model_name, data.eval_results = repo_id.rpartition("/")[2], found
    return data


def _named(ref: str) -> str:
    return f"{ref} (synthetic labels)" if ref.startswith(_SYNTHETIC) else ref


def _about(module: BackboneNetwork) -> str:
    sets = ", ".join(f"`{_named(ref)}`" for ref in module.training_sets) or "not recorded"
    kind = f"the head of `{type(module).__name__}`"
    if isinstance(module, RALINetwork):
        kind = f"{int(module.active.sum())} prototypes that carry scores (RALI, arXiv 2510.11369)"
    view = module.view.resized(module.preprocess)
    how = "native crops" if view is None else view.resize.replace("_", " ")
    size = "x".join(map(str, module.view.size_for(module.preprocess)))
    return (
        "A no-reference image quality model of rali_zoo: one image in, "
        "one score in [1, 5] out, higher is better.\n\n"
        f"- **Network**: `{_backbone(module)}` with {kind}, "
        f"{sum(p.numel() for p in module.parameters()):,} parameters\n"
        f"- **Images**: view `{module.view.kind}` ({how}), {size} pixels (height x width)\n"
        f"- **Trained on**: {sets}\n"
        f"- **Weights**: revision `{module.revision}`"
    )


def _backbone(module: BackboneNetwork) -> str:
    """The encoder's reference without paths of the machine that trained it."""
    head, mark, place = without_option(module.backbone.uri, "checkpoint").partition("local-dir:")
    return head + mark + place.rstrip("/").rpartition("/")[2] if mark else head


def _usage(repo_id: str) -> str:
    ref = f"hf-hub:{repo_id}" if "/" in repo_id else f"local-dir:{repo_id}"
    return (
        "## Use\n\n```python\nimport rali_zoo\n\n"
        f'scorer = rali_zoo.load_model("{ref}")\nprint(scorer.score("photo.jpg")[0].score)\n```'
    )


def _table(results: Results) -> str:
    if not results:
        return "## Results\n\nNone were given."
    shown = [m for m in STATISTICS if any(m in numbers for numbers in results.values())]
    rows = [
        "| test set | n | " + " | ".join(STATISTICS[m].label for m in shown) + " |",
        "|---" * (2 + len(shown)) + "|",
    ]
    for name, numbers in results.items():
        cells = [f"{numbers[m]:.3f}" if m in numbers else "–" for m in shown]
        count = f"{int(numbers['n'])}" if "n" in numbers else "–"
        rows.append(f"| `{_named(name)}` | {count} | " + " | ".join(cells) + " |")
    return "## Results\n\nAs given by whoever published this model.\n\n" + "\n".join(rows)


def _limits(module: BackboneNetwork, results: Results) -> str:
    lines = [
        "Scores follow the raters and images of the training sets; elsewhere they may be off in scale "
        "and in order. Measure on your own labelled images first.",
        "It judges how an image looks, not whether it is true, safe, or generated.",
        "The licences of the training sets and of the backbone's weights may restrict its use.",
    ]
    if any(ref.startswith(_SYNTHETIC) for ref in module.training_sets):
        lines.insert(
            0, "**Trained on synthetic labels**, made by a rule: it is no judge of real photographs."
        )
    unseen = [ref for ref in results if ref in module.training_sets]
    if unseen:
        lines.append(
            f"Numbers on {', '.join(f'`{r}`' for r in unseen)} are in-domain: it was trained on that set."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
