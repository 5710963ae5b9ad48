"""Image quality assessment by reasoning as representation.

>>> import rali_zoo
>>> scorer = rali_zoo.load_model("ckpt:runs/synthetic/checkpoints/last.ckpt")  # doctest: +SKIP
>>> print(scorer.score("photo.jpg")[0].explain())  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rali_zoo.backbones import list_backbones
    from rali_zoo.data.registry import list_datasets
    from rali_zoo.export.hub import from_pretrained, push_to_hub, save_pretrained
    from rali_zoo.export.loss import quality_loss
    from rali_zoo.export.pyiqa_plugin import register_pyiqa
    from rali_zoo.export.torchmetrics_metric import RALIScore
    from rali_zoo.models.files import save_scorer
    from rali_zoo.types import Score
    from rali_zoo.zoo import list_models, load_model

__version__ = "0.1.0"

_WHERE = {
    "Score": "rali_zoo.types",
    "load_model": "rali_zoo.zoo",
    "list_models": "rali_zoo.zoo",
    "save_scorer": "rali_zoo.models.files",
    "list_datasets": "rali_zoo.data.registry",
    "list_backbones": "rali_zoo.backbones",
    "RALIScore": "rali_zoo.export.torchmetrics_metric",
    "from_pretrained": "rali_zoo.export.hub",
    "push_to_hub": "rali_zoo.export.hub",
    "quality_loss": "rali_zoo.export.loss",
    "register_pyiqa": "rali_zoo.export.pyiqa_plugin",
    "save_pretrained": "rali_zoo.export.hub",
}

__all__ = [
    "RALIScore",
    "Score",
    "__version__",
    "from_pretrained",
    "list_backbones",
    "list_datasets",
    "list_models",
    "load_model",
    "push_to_hub",
    "quality_loss",
    "register_pyiqa",
    "save_pretrained",
    "save_scorer",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562), so that ``import rali_zoo`` costs nothing."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'rali_zoo' has no attribute {name!r}; it has {', '.join(__all__)}")
