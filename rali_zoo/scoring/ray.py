"""The same stages on a cluster, by Ray Data: tasks that decode on CPUs, actors that hold the model.

A batch of the list travels as one row, so that images meet in the model as they do without Ray, and get
the same scores. The driver alone writes: rows come back in any order, tasks and actors that die are started
again by Ray, and if the driver dies, the parts that are written stay.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import chdir, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rali_zoo.data.images import MAX_PIXELS
from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError, ImageDecodeError, MissingExtraError
from rali_zoo.scoring.pipeline import Slice
from rali_zoo.types import Runtime, Score

if TYPE_CHECKING:
    from rali_zoo.models.scorer import NetworkScorer, Prepared
    from rali_zoo.protocols import Scorer
    from rali_zoo.scoring.runtime import Compile, Decode, Precision

#: Batches that one decoding task takes: enough to be worth starting, few enough to spread.
BATCHES_A_TASK = 8
#: Bytes that a decoding task may need: its libraries, and the largest image that is decoded, as RGB.
MEMORY = 2**29 + 3 * MAX_PIXELS


@dataclass(frozen=True)
class WorkerModel:
    """How each actor makes its scorer, and how images are decoded; see :mod:`rali_zoo.cli.score`."""

    model: str
    decode: Decode
    device: str | None = None
    precision: Precision = "float32"
    compile: Compile = "off"
    threads: int | None = None
    runtime: Runtime = "torch"


def run_ray(
    batches: Iterable[Slice], scorer: Scorer, recipe: WorkerModel, actors: int = 1
) -> Iterator[tuple[Slice, list[Score]]]:
    """Score batches on the cluster at ``RAY_ADDRESS``, else on this machine, in whatever order they finish.

    Args:
        batches: all of them are listed at the start (names only).
        scorer: the one that the actors load too; asked for its view only.
        recipe: how they do.
        actors: copies of the model; each takes a GPU if the device is one, else a CPU. Where a cluster has no
            room for all, the rest follow as it grows.

    Raises:
        ConfigError: a scorer that is no module of ours, or too few CPUs.
        MissingExtraError: Ray is not installed.
    """
    from rali_zoo.models.scorer import NetworkScorer

    if not isinstance(scorer, NetworkScorer):
        raise ConfigError(
            f"--engine ray: {scorer.name} decodes images itself, so there are no stages to spread; "
            "use --engine local, with --shard K/N on each of N machines. Ray takes ckpt:, local-dir:, "
            "hf-hub:, onnx:, openvino:, levels: and names of 'rali-zoo list models'"
        )
    try:
        import ray  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    folder = os.getcwd()
    rows = [
        {"part": b.part, "start": b.start, "items": json.dumps(b.items), "folder": folder} for b in batches
    ]
    return _run(rows, scorer, recipe, actors, folder) if rows else iter(())


def _run(
    rows: list[dict[str, Any]], scorer: NetworkScorer, recipe: WorkerModel, actors: int, folder: str
) -> Iterator[tuple[Slice, list[Score]]]:
    import ray

    started = _begin(actors)
    try:
        yield from _stream(rows, scorer, recipe, actors, folder)
    finally:
        if started:
            ray.shutdown()


def _begin(actors: int) -> bool:
    """Connect to Ray or start it, with a CPU for decoding beside the actors'; whether it was started here."""
    import ray

    from rali_zoo.scoring.runtime import available_cores

    here = not ray.is_initialized()
    if here:
        cpus = None if "RAY_ADDRESS" in os.environ else max(available_cores(), actors + 1)
        ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    return here


def _fitting(actors: int, on_gpu: bool, resources: dict[str, float]) -> int:
    """How many actors a cluster has room for now, beside a CPU that decodes; at least 1.

    If there were more, they would hold every CPU while they wait for images that nobody decodes.

    Raises:
        ConfigError: no CPU is left to decode.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    room = gpus if on_gpu else cpus - 1
    if cpus < (1 if on_gpu else 2):
        raise ConfigError(
            f"--engine ray: the cluster has {cpus} CPUs, which leaves none to decode; add a node, "
            "or use --engine local"
        )
    return min(actors, max(room, 1))


def _stream(
    rows: list[dict[str, Any]], scorer: NetworkScorer, recipe: WorkerModel, actors: int, folder: str
) -> Iterator[tuple[Slice, list[Score]]]:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False  # we have our own
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    on_gpu = (recipe.device or "cpu").startswith("cuda")
    first = _fitting(actors, on_gpu, ray.cluster_resources())
    scored = (
        ray.data.from_items(rows, override_num_blocks=-(-len(rows) // BATCHES_A_TASK))
        # Equal demands would make Ray run both stages in the actor, one after the other; these differ.
        .map(_Decoder(scorer, recipe.decode), num_cpus=1, memory=MEMORY)
        .map(
            cast(Any, _Worker),  # a class is made once an actor
            fn_constructor_args=(recipe, folder),
            compute=ray.data.ActorPoolStrategy(min_size=first, max_size=actors),
            num_gpus=1 if on_gpu else 0,
            num_cpus=0 if on_gpu else 1,
        )
    )
    for row in scored.iter_rows():
        items = [Item(*item) for item in json.loads(row["items"])]
        values = json.loads(row["scores"])
        scores = [
            Score(score, std, error, item.path, scorer.name)
            for item, (score, std, error) in zip(items, values, strict=True)
        ]
        yield Slice(int(row["part"]), int(row["start"]), items), scores


class _Decoder:
    """Reads, decodes and cuts the images of a row; goes to the tasks without the model."""

    def __init__(self, scorer: NetworkScorer, decode: Decode) -> None:
        self.view, self.preprocess, self.decode = scorer.network.view, scorer.network.preprocess, decode

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import torch

        torch.set_num_threads(1)
        prepared = [self._prepare(Item(*item), row["folder"]) for item in json.loads(row["items"])]
        errors = [str(p) if isinstance(p, ImageDecodeError) else None for p in prepared]
        tensors = [p for p in prepared if not isinstance(p, ImageDecodeError)]
        return {
            "part": row["part"],
            "start": row["start"],
            "items": row["items"],
            "errors": json.dumps(errors),
            "shapes": json.dumps([list(t.shape) for t in tensors]),
            "pixels": b"".join(t.numpy().tobytes() for t in tensors),
        }

    def _prepare(self, item: Item, folder: str) -> Prepared:
        from rali_zoo.data.images import load_levels
        from rali_zoo.data.video import is_video
        from rali_zoo.scoring.preprocess import FastView

        if is_video(item.path):
            return ImageDecodeError("--engine ray takes images only; score videos with --engine local")
        try:
            # A worker's own folder need not be the driver's.
            shard = os.path.join(folder, item.shard) if item.shard else ""
            source = item._replace(shard=shard).source()
            if isinstance(source, str):
                source = os.path.join(folder, source)
            if self.decode == "fast":
                return FastView(self.view, self.preprocess).prepare(source)
            return load_levels(source, self.view, self.preprocess)
        except ImageDecodeError as error:
            return error


class _Worker:
    """An actor: loads the model once and scores rows."""

    def __init__(self, recipe: WorkerModel, folder: str) -> None:
        import torch

        from rali_zoo.export.encoder import use_onnx
        from rali_zoo.scoring.runtime import tune
        from rali_zoo.zoo import load_model

        torch.set_num_threads(recipe.threads or 1)
        # Relative paths begin at the driver's folder; models of the hub or the package need none.
        with chdir(folder) if os.path.isdir(folder) else nullcontext():
            self.scorer = cast("NetworkScorer", load_model(recipe.model, recipe.device))
        tune(self.scorer, recipe.precision, recipe.compile)
        use_onnx(self.scorer, recipe.runtime)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        prepared = _unpack(row)
        scores = self.scorer.score_prepared(prepared, [""] * len(prepared))
        return {
            "part": row["part"],
            "start": row["start"],
            "items": row["items"],
            "scores": json.dumps([[s.score, s.std, s.error] for s in scores]),
        }


def _unpack(row: dict[str, Any]) -> list[Prepared]:
    """What :class:`_Decoder` packed."""
    import torch

    pixels = torch.frombuffer(bytearray(row["pixels"] or b"\0"), dtype=torch.uint8)  # it takes no empty one
    shapes = iter(json.loads(row["shapes"]))
    prepared: list[Prepared] = []
    offset = 0
    for error in json.loads(row["errors"]):
        if error is not None:
            prepared.append(ImageDecodeError(error))
            continue
        shape = torch.Size(next(shapes))
        piece = pixels[offset : offset + shape.numel()]
        offset += shape.numel()
        prepared.append(piece.view(shape))
    return prepared
