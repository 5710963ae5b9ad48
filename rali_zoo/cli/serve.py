"""``rali-zoo serve``: an HTTP service that scores images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rali_zoo.errors import MissingExtraError
from rali_zoo.zoo import DEFAULT_MODEL

if TYPE_CHECKING:
    from rali_zoo.protocols import Scorer


def command(
    model: str = DEFAULT_MODEL,
    host: str = "127.0.0.1",
    port: int = 8000,
    batch_size: int = 16,
    workers: int = 2,
    threads: int | None = None,
    device: str = "auto",
    max_images: int = 32,
    max_megabytes: int = 64,
    max_megapixels: int = 64,
    timeout: float = 30.0,
    decode_timeout: float = 10.0,
) -> None:
    """Score images over HTTP: POST /score, GET /health, GET /model. See docs/serve.md.

    Args:
        model: ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO[@REV], or a name of 'rali-zoo list models'.
        host: address to listen at; the default is reached from this machine only.
        port: 0 takes a free one.
        batch_size: most images a forward pass.
        workers: processes that decode.
        threads: of the computation; OMP_NUM_THREADS, or the cores that are free, by default.
        device: where to compute, e.g. cuda or cpu; auto is a GPU where there is one.
        max_images: in a request.
        max_megabytes: of a request.
        max_megapixels: of an image.
        timeout: seconds that a request may take to arrive, and again to be answered.
        decode_timeout: seconds that an image may take to decode.
    """
    try:
        from rali_zoo.serving.http import make_app
        from rali_zoo.serving.server import serve
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "starlette", "serve") from None
    from rali_zoo.serving.engine import Engine, Limits

    limits = Limits(max_images, max_megabytes, max_megapixels, decode_seconds=decode_timeout, seconds=timeout)

    def make() -> Any:
        return make_app(Engine(load(model, device, threads), limits, batch_size, workers))

    serve(make, host, port, f"{model}: POST /score")


def load(model: str, device: str, threads: int | None) -> Scorer:
    """The scorer, with the number of threads set."""
    import torch

    from rali_zoo.scoring.runtime import check_device, set_threads
    from rali_zoo.zoo import load_model, with_scheme

    device = check_device(device, with_scheme(model))
    scorer = cast("Scorer", load_model(model, device))
    set_threads(threads, torch.device(device))
    return scorer
