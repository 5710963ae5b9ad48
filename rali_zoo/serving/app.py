"""The web app: drop images, see scores with their reasons, compare two. Gradio draws it.

Nothing is fetched from or sent to the network: gradio's analytics are off, fonts are the system's, and a
content security policy forbids the browser what a later version of gradio might try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI

from rali_zoo.serving.cards import CSS, cards, comparison, header
from rali_zoo.serving.engine import Answer, BusyError, Engine, Upload, caution, score_range

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREVIEW = 640  #: longer side of the images that are shown, in pixels
_IMAGES = 100  # at a time
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "monospace"]


def make_app(engine: Engine) -> ASGIApp:
    """The app as an ASGI application.

    Args:
        engine: closed when the application stops; made with ``preview=PREVIEW``.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.warm_up)
        yield
        await asyncio.to_thread(engine.close)

    outer = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        outer,
        _page(engine),
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size=engine.limits.megabytes * 1_000_000,
        theme=gr.themes.Base(font=_FONTS, font_mono=_MONO),
        css=CSS,
    )
    return _guarded(outer)


def _guarded(app: ASGIApp) -> ASGIApp:
    """``app`` with headers that keep a browser from going elsewhere."""
    extra = [
        (b"content-security-policy", _POLICY.encode("ascii")),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        await app(scope, receive, sending)

    return guarded


def _page(engine: Engine) -> gr.Blocks:
    ends = score_range(engine.scorer)
    with gr.Blocks(title="rali_zoo: image quality", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.HTML(header(engine.scorer.name, ends, caution(engine.scorer)))
        files = gr.File(label="Images", file_count="multiple", height=170, elem_id="images")
        kept = gr.State([])
        shown = gr.HTML(elem_id="scores")
        with gr.Column(visible=False, elem_id="compare") as panel:
            gr.HTML('<div class="rz"><h2>Compare two</h2></div>')
            with gr.Row():
                first = gr.Dropdown(label="First", min_width=240, elem_id="first")
                second = gr.Dropdown(label="Second", min_width=240, elem_id="second")
            pair = gr.HTML(elem_id="pair")

        def score(paths: list[str] | None, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
            answers, note = _scored(engine, paths or [], progress)
            names = [(answer.score.path, i) for i, answer in enumerate(answers)]
            best, worst = _ends_of(answers)
            return [
                answers,
                cards(answers, ends, note),
                gr.update(visible=best != worst),
                gr.update(choices=names, value=best),
                gr.update(choices=names, value=worst),
                compare(answers, best, worst),
            ]

        def compare(answers: list[Answer], a: int | None, b: int | None) -> str:
            if a is None or b is None or a == b or max(a, b) >= len(answers):
                return ""
            return comparison(answers[a], answers[b], ends)

        outputs = [kept, shown, panel, first, second, pair]
        files.change(score, files, outputs, api_visibility="private", concurrency_limit=4)
        chosen = [first.input, second.input]
        gr.on(chosen, compare, [kept, first, second], pair, api_visibility="private", show_progress="hidden")
    return page


def _scored(engine: Engine, paths: Sequence[str], progress: gr.Progress) -> tuple[list[Answer], str]:
    """Answers in the order of the images, and what there is to say of all of them."""
    answers: list[Answer] = []
    few = paths[:_IMAGES]
    for start in range(0, len(few), engine.batch_size):
        progress((start, len(few)), unit="images")
        uploads = [
            Upload(Path(path).name, Path(path).read_bytes())
            for path in few[start : start + engine.batch_size]
        ]
        try:
            answers += [future.result(engine.limits.seconds) for future in engine.submit(uploads)]
        except BusyError as error:
            raise gr.Error(str(error)) from None
        except TimeoutError:
            raise gr.Error(f"scoring took more than {engine.limits.seconds:g} s; drop fewer images") from None
    note = (
        f"{len(few)} of {len(paths)} images are scored; drop fewer at a time."
        if len(paths) > len(few)
        else ""
    )
    return answers, note


def _ends_of(answers: Sequence[Answer]) -> tuple[int | None, int | None]:
    """Positions of the best and of the worst image; two of ``None`` where fewer than two have a score."""
    good = sorted(
        (answer.score.score, -i) for i, answer in enumerate(answers) if answer.score.score is not None
    )
    return (-good[-1][1], -good[0][1]) if len(good) > 1 else (None, None)
