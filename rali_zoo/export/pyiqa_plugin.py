"""Our scorers inside pyiqa: ``rali_zoo.register_pyiqa()``, then ``pyiqa.create_metric("rali")``.

pyiqa's own entry points are read too late for a new metric's name, so the registration is a call. pyiqa has a
licence of its own (PolyForm Noncommercial) and is not installed with this package.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rali_zoo.errors import ConfigError, MissingExtraError
from rali_zoo.export.loss import QualityLoss
from rali_zoo.export.tensors import exact_scores
from rali_zoo.models.scorer import NetworkScorer

_ARCHITECTURE = "RALIZooScorer"


class PyIQAScorer(nn.Module):
    """The network that pyiqa builds.

    Without gradients (a metric) the scores are those of ``rali-zoo score``; with them (``as_loss=True``)
    pixels are cut in torch, which may move a score by about a hundredth.

    Args:
        model: reference of a scorer with gradients, as :class:`~rali_zoo.export.loss.QualityLoss` takes it.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.loss = QualityLoss(model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) or grey (B, 1, H, W) images in [0, 1] to (B, 1) scores in [1, 5]."""
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if torch.is_grad_enabled():
            return self.loss.score(x)[:, None]
        return exact_scores(NetworkScorer(self.loss.network, self.loss.name), x)[:, None]


def register_pyiqa(name: str = "rali", model: str = "rali-tiny-synthetic") -> None:
    """Make ``pyiqa.create_metric(name)`` build a scorer of ours; calling it again changes the model.

    As a metric it gives (B, 1) scores in [1, 5], higher is better. With ``as_loss=True`` it has gradients and
    is reduced by ``loss_reduction``; since higher is better, minimise its negative. Another model than the
    registered one: ``pyiqa.create_metric(name, model="ckpt:PATH")``.

    Args:
        name: the metric's name in pyiqa.
        model: reference of a scorer with gradients. The default is the one in the package, which was trained
            on synthetic labels and is no judge of photographs.

    Raises:
        ConfigError: pyiqa has a metric of its own by that name.
        MissingExtraError: pyiqa is not installed.
    """
    try:
        from pyiqa.default_model_configs import DEFAULT_CONFIGS
        from pyiqa.utils.registry import ARCH_REGISTRY
    except ImportError:
        raise MissingExtraError("pyiqa", "pyiqa") from None
    taken = DEFAULT_CONFIGS.get(name)
    if taken is not None and taken["metric_opts"]["type"] != _ARCHITECTURE:
        raise ConfigError(f"pyiqa has a metric {name!r} of its own; choose another name")
    ARCH_REGISTRY.register(PyIQAScorer, name=_ARCHITECTURE, override=True)
    DEFAULT_CONFIGS[name] = {
        "metric_opts": {"type": _ARCHITECTURE, "model": model},
        "metric_mode": "NR",
        "score_range": "1, 5",
        "lower_better": False,
    }
