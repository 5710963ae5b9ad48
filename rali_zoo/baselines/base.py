"""What makes a scorer of any function from an image to a number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from rali_zoo.backbones.weights import first_line, weights_hash
from rali_zoo.data.images import load_image
from rali_zoo.errors import ConfigError, ImageDecodeError, UnknownNameError
from rali_zoo.types import MOS_RANGE, Colour, Score
from rali_zoo.uri import Uri
from rali_zoo.views import levels, unit

if TYPE_CHECKING:
    from rali_zoo.types import ImageSource

#: Images are decoded to 8-bit RGB, divided by 255 and handed over at their own size.
NATIVE = "rgb8/255 native size"

_DEPTH = 6  # of containers in containers in which a network is looked for
_REGISTERED = ("_parameters", "_buffers", "_modules")
AnyMetric = TypeVar("AnyMetric", bound="Metric")


@dataclass(frozen=True)
class Facts:
    """What is known of a metric, in its library's own words.

    Attributes:
        name: its reference.
        version: of the library.
        licence: of the library, as an SPDX identifier.
        needs_reference: whether it compares with a reference image.
        lower_better: whether a smaller value means better quality.
        value_range: the values' nominal range, before any sign is turned; ``None`` where an end is open.
        training_sets: rated data sets that it was fitted to; ``None`` = not known.
    """

    name: str
    version: str
    licence: str
    needs_reference: bool
    lower_better: bool
    value_range: tuple[float, float] | None = None
    training_sets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Metric:
    """What a library's documentation says of one of its metrics.

    Attributes:
        lower_better: whether a smaller value means better quality.
        value_range: nominal range; ``None`` where an end is open.
        needs_reference: whether it compares two images.
        training_sets: rated data sets that it was fitted to.
        weights: whether it fetches a file.
        options: of its constructor.
        licence: of the library.
    """

    lower_better: bool = False
    value_range: tuple[float, float] | None = None
    needs_reference: bool = True
    training_sets: tuple[str, ...] = ()
    weights: bool = False
    options: dict[str, float | bool | str] = field(default_factory=dict)
    licence: str = "Apache-2.0"

    def facts(self, uri: Uri, version: str) -> Facts:
        """As those of a scorer, of a version of its library."""
        return Facts(
            f"{uri.scheme}:{uri.id}",
            version,
            self.licence,
            self.needs_reference,
            self.lower_better,
            self.value_range,
            self.training_sets,
        )


def metric_of(uri: Uri, rows: Mapping[str, AnyMetric], kind: str) -> AnyMetric:
    """The row of a reference without options; raises :class:`UnknownNameError`, which calls it ``kind``."""
    uri.take(())
    if uri.id not in rows:
        raise UnknownNameError(kind, uri.id, rows)
    return rows[uri.id]


class Foreign:
    """A scorer that is no model of ours.

    Attributes:
        name: reference of the scorer.
    """

    name: str
    colour: Colour = "stored"  #: as the metrics' authors read images

    @property
    def network(self) -> NoReturn:
        """There is none; raises :class:`ConfigError`."""
        raise ConfigError(
            f"{self.name!r} only gives scores; this needs a model of rali_zoo: ckpt:, local-dir:, hf-hub: "
            "or a zoo name"
        )


class Frozen(nn.Module):
    """Somebody else's network, kept in evaluation mode whatever its owner is put into.

    ``Trainer.fit`` calls ``train()`` on everything below the module it trains; metrics that crop at random or
    normalise over the batch would then give other scores.

    Args:
        network: the network; its parameters lose their gradients.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, *images: Tensor) -> object:
        """Whatever the network gives."""
        return self.network(*images)


class MetricScorer(Foreign):
    """A metric as a :class:`~rali_zoo.types.Scorer`.

    Images are scored one at a time: a score depends on its image alone, not on what stands beside it in a
    batch, and images of any size can follow each other.

    Args:
        facts: what is known of it.
        compute: the metric's own value of an image (1, 3, H, W) in [0, 1], and of its reference if it needs
            one; anything that holds one number.
        device: where to compute.
        networks: every network that takes part; put into evaluation mode.

    Attributes:
        name: its reference.
        revision: version of the library, with a hash of the weights where there are any.
        training_sets: rated data sets that it was fitted to; ``None`` = not known.
        needs_reference: whether :meth:`score` needs ``references``.
        score_range: nominal range of the scores, sign turned; ``None`` where an end is open.
        native_scale: whether scores are in the metric's units instead of MOS in [1, 5].
        licence: of the library.
        preprocess_id: what is done to an image before the metric sees it.
    """

    def __init__(
        self,
        facts: Facts,
        compute: Callable[[Tensor, Tensor | None], object],
        device: torch.device | str | None = None,
        networks: Sequence[nn.Module] = (),
    ) -> None:
        self.name, self.licence = facts.name, facts.licence
        self.training_sets, self.needs_reference = facts.training_sets, facts.needs_reference
        self.device = torch.device(device or "cpu")
        self.preprocess_id = NATIVE
        self._compute, self._sign = compute, -1.0 if facts.lower_better else 1.0
        self._networks = [network.eval() for network in networks]
        weights = [weights_hash(m) for m in self._networks if any(p.numel() for p in m.parameters())]
        self.revision = "+".join([facts.version, *weights])
        self.score_range = facts.value_range
        if facts.value_range is not None and facts.lower_better:
            self.score_range = (0.0 - facts.value_range[1], 0.0 - facts.value_range[0])  # no minus zero
        self.native_scale = self.score_range != MOS_RANGE

    def modules(self) -> list[nn.Module]:
        """Every network that takes part in a score, also one that its owner hides; may be none."""
        return list(self._networks)

    def score(
        self,
        images: ImageSource | Iterable[ImageSource],
        batch_size: int = 16,
        progress: Callable[[int], None] | None = None,
        workers: int = 2,
        references: ImageSource | Iterable[ImageSource | None] | None = None,
    ) -> list[Score]:
        """Score images.

        Args:
            images: one image or several, as for :func:`~rali_zoo.data.images.load_image`.
            batch_size: images that are decoded ahead.
            progress: called with the number of images done.
            workers: threads that decode.
            references: what each image is compared with, in the same order; ``""`` or ``None`` where there
                is nothing. Not looked at by metrics that need none.

        Returns:
            One score an image, in order, higher = better. An image that cannot be read or that the metric
            cannot score has ``error`` and no score.

        Raises:
            ConfigError: the metric needs references and got none, or not one an image.
        """
        items = _listed(images)
        pairs = list(zip(items, self._references(references, len(items)), strict=True))
        todo, found = iter(pairs), list[Score]()
        for network in self._networks:
            network.eval()
        with ThreadPoolExecutor(max(1, workers)) as pool:
            ahead: deque[Future[tuple[Tensor, Tensor | None]]] = deque(
                pool.submit(self._prepare, *pair) for pair in islice(todo, max(1, batch_size))
            )
            while ahead:
                ready = ahead.popleft()
                value, error = self._value(ready)
                ahead.extend(pool.submit(self._prepare, *pair) for pair in islice(todo, 1))
                path = _path(items[len(found)], len(found))
                found.append(Score(value, error=error, path=path, model=self.name))
                if progress is not None:
                    progress(len(found))
        return found

    def _references(self, references: Any, count: int) -> list[Any]:
        if not self.needs_reference:
            return [None] * count
        if references is None:
            raise ConfigError(
                f"{self.name!r} compares each image with its undistorted original: give references, one an "
                "image, or take a no-reference metric"
            )
        found = _listed(references)
        if len(found) != count:
            raise ConfigError(f"{self.name!r}: {len(found)} references for {count} images; give one an image")
        return found

    def _prepare(self, image: Any, reference: Any) -> tuple[Tensor, Tensor | None]:
        decoded = unit(levels(load_image(image, colour=self.colour)))[None]
        if not self.needs_reference:
            return decoded, None
        if reference is None or (isinstance(reference, str) and not reference):
            raise ImageDecodeError("no reference image to compare with")
        try:
            original = unit(levels(load_image(reference, colour=self.colour)))[None]
        except ImageDecodeError as error:
            raise ImageDecodeError(f"its reference {error}") from error
        if original.shape != decoded.shape:
            sizes = [f"{t.shape[3]}x{t.shape[2]}" for t in (original, decoded)]
            raise ImageDecodeError(f"its reference is {sizes[0]}, the image {sizes[1]}")
        return decoded, original

    def _value(self, ready: Future[tuple[Tensor, Tensor | None]]) -> tuple[float | None, str | None]:
        try:
            image, original = ready.result()
            with torch.no_grad():
                where = None if original is None else original.to(self.device)
                value = number(self._compute(image.to(self.device), where))
        except ImageDecodeError as error:
            return None, str(error)
        except Exception as error:  # whatever a foreign metric raises costs this image, not the run
            return None, first_line(error)
        if not math.isfinite(value):
            return None, f"the metric gave {value}"
        return self._sign * value + 0.0, None  # + 0.0: no minus zero either


def number(value: object) -> float:
    """The one number in a value of a metric; raises :class:`ValueError` when there are more, or none."""
    values = torch.as_tensor(value).detach().flatten()
    if values.numel() != 1:
        raise ValueError(f"the metric gave {values.numel()} numbers for one image")
    return float(values)


def networks_in(thing: object) -> list[nn.Module]:
    """The outermost networks reachable from an object: itself, and those it keeps unregistered.

    A network in a plain Python list, in a dict or in an attribute of a helper is on no list of parameters;
    it takes part in the score all the same.
    """
    found: list[nn.Module] = []
    seen: set[int] = set()
    waiting: list[tuple[object, int]] = [(thing, 0)]
    while waiting:
        item, depth = waiting.pop()
        if id(item) in seen or depth > _DEPTH:
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module):
            inside = list(item.modules())
            found.append(item)
            seen.update(id(m) for m in inside)
            kept = [v for m in inside for k, v in vars(m).items() if k not in _REGISTERED]
        else:
            kept = _members(item)
        waiting += [(k, depth + 1) for k in kept]
    return [m for m in found if not any(m is not o and any(m is x for x in o.modules()) for o in found)]


def _members(item: object) -> list[object]:
    """What an object that is no network holds, where a network may be among it."""
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, list | tuple | set | frozenset):
        return list(item)
    if isinstance(item, MethodType):
        return [item.__self__]
    if isinstance(item, partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, Tensor | type | FunctionType | ModuleType):
        return []
    return list(getattr(item, "__dict__", {}).values())


def _listed(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _path(image: Any, position: int) -> str:
    return str(image) if isinstance(image, str | Path) else f"[{position}]"
