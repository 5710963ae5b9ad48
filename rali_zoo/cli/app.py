"""``rali-zoo app``: a page on this machine to drop images on."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from rali_zoo.errors import MissingExtraError
from rali_zoo.zoo import DEFAULT_MODEL


def command(
    model: str = DEFAULT_MODEL,
    host: str = "127.0.0.1",
    port: int = 7860,
    threads: int | None = None,
    device: str = "auto",
) -> None:
    """A web page that scores the images dropped on it, says why, and compares two.

    Args:
        model: ckpt:PATH, local-dir:PATH, hf-hub:ORG/REPO[@REV], or a name of 'rali-zoo list models'.
        host: address to listen at; the default is reached from this machine only.
        port: 0 takes a free one.
        threads: of the computation; OMP_NUM_THREADS, or the cores that are free, by default.
        device: where to compute, e.g. cuda or cpu; auto is a GPU where there is one.
    """
    with tempfile.TemporaryDirectory(prefix="rali-zoo-app-") as uploads:
        # Before gradio is imported, which reads them then.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        try:
            from rali_zoo.serving.app import PREVIEW, make_app
            from rali_zoo.serving.server import serve
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "gradio", "app") from None
        from rali_zoo.cli.serve import load
        from rali_zoo.serving.engine import Engine

        def make() -> Any:
            return make_app(Engine(load(model, device, threads), preview=PREVIEW, attributes=True))

        serve(make, host, port, f"{model}: the page")
