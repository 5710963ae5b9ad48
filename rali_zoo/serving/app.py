"""The web app: drop images, see scores with their explanations, compare two. Gradio draws it.

Nothing is fetched from or sent to the network: gradio's analytics are off, fonts are the system's, and a
content security policy forbids the browser what a later version of gradio might try.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse

from rali_zoo.models.maps import lay, overlay, region_images
from rali_zoo.serving.cards import CSS, cards, comparison, header
from rali_zoo.serving.engine import Answer, BusyError, Engine, Upload, caution

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREVIEW = 640  #: longer side of the images that are shown, in pixels
_IMAGES = 100  # at a time
_MAPPED = 4  # images at most that get maps, which are 16 times the work
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode("ascii")),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_COOKIE = "rali-zoo-client"
_UPLOAD, _JOIN = "/gradio_api/upload", "/gradio_api/queue/join"
#: What the page asks for; every other route of gradio's is closed.
_READS = re.compile(
    r"/|/(?:assets|static|svelte)/.+|/(?:gradio_api/)?theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/config"
    r"|/gradio_api/(?:info|app_id|startup-events|upload_progress|queue/data|queue/status|heartbeat/\w+)"
)
_WRITES = re.compile(r"/gradio_api/(?:upload|queue/join|reset|cancel)")
_EVENT_BYTES = 1_000_000  # of an event, which names at most some hundred files
_REMEMBERED = 20_000  # uploads; their files are deleted after ten minutes
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

    page = _page(engine)
    page.has_launched = True  # a page that is mounted is not, and gradio would check no path
    outer = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        outer,
        page,
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
    return _Guard(outer)


class _Guard:
    """Lets through what the page itself asks for, with headers that keep a browser from going elsewhere.

    Gradio takes a path or a URL wherever an event has data, and has routes that hand out files, other
    machines' pages and saved states. None of those is answered here, and an event may name only files that
    the same client (by its cookie) has uploaded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._uploads: dict[tuple[str, str], None] = {}  # (client, path), oldest first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        path, known = scope["path"], request.cookies.get(_COOKIE, "")
        client = known or secrets.token_urlsafe()
        extra = list(_HEADERS)
        if path == "/":
            scope["query_string"] = b""  # a saved state would be named there
            if not known:
                extra.append((b"set-cookie", f"{_COOKIE}={client}; HttpOnly; SameSite=Strict".encode()))
        answered = bytearray()  # to an upload: the paths of the files

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            elif path == _UPLOAD:
                answered.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._remember(known, bytes(answered))
            await send(message)

        await self._pass_on(request, known, sending)

    async def _pass_on(self, request: Request, known: str, send: Send) -> None:
        """What a request gets: nothing but the page's own routes, and events that name what was uploaded."""
        scope, receive = request.scope, request.receive
        if not (_READS if scope["method"] in ("GET", "HEAD") else _WRITES).fullmatch(scope["path"]):
            await JSONResponse({"error": "not found"}, 404)(scope, receive, send)
        elif scope["path"] != _JOIN:
            await self._app(scope, receive, send)
        elif refused := self._refusal(body := await _read(request), known):
            await JSONResponse({"error": refused}, 403)(scope, receive, send)
        else:
            await self._app(scope, _again(body), send)

    def _remember(self, client: str, answer: bytes) -> None:
        with suppress(ValueError):  # an upload that was refused is answered in words
            self._uploads |= {(client, path): None for path in json.loads(answer)}
        while len(self._uploads) > _REMEMBERED:
            del self._uploads[next(iter(self._uploads))]

    def _refusal(self, body: bytes, client: str) -> str:
        """Why an event is refused; empty if it is not."""
        if len(body) > _EVENT_BYTES:
            return "the event is too large"
        try:
            todo = [json.loads(body)]
        except (ValueError, RecursionError):
            return "the event is no JSON"
        while todo:
            value = todo.pop()
            if isinstance(value, dict):
                if "path" in value and (client, value["path"]) not in self._uploads:
                    return "only files that were uploaded here are scored"
                todo += value.values()
            elif isinstance(value, list):
                todo += value
        return ""


async def _read(request: Request) -> bytes:
    """The body of a request, or the beginning of one that is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _EVENT_BYTES:
            break
    return bytes(body)


def _again(body: bytes) -> Receive:
    """A request's body that has been read, for whoever is next."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        return next(messages, {"type": "http.disconnect"})

    return receive


def _page(engine: Engine) -> gr.Blocks:
    ends = engine.scorer.score_range
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
        uploads = [_upload(Path(path)) for path in few[start : start + engine.batch_size]]
        try:
            answers += _scored_few(engine, uploads, maps=len(few) <= _MAPPED)
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


def _scored_few(engine: Engine, uploads: Sequence[Upload], maps: bool = True) -> list[Answer]:
    answers = [future.result(engine.limits.seconds) for future in engine.submit(uploads)]
    if not maps:
        return answers
    return [_mapped(engine, answer) for answer in answers]


def _mapped(engine: Engine, answer: Answer) -> Answer:
    """An answer with its map, whose regions are cut from the preview and scored as all other images are."""
    if answer.score.score is None or not answer.preview:
        return answer
    image = Image.open(io.BytesIO(answer.preview)).convert("RGB")
    uploads = [Upload("region.png", _encoded(shown, "PNG")) for shown in region_images(image)]
    try:
        found = [future.result(engine.limits.seconds).score for future in engine.submit(uploads)]
    except (BusyError, TimeoutError):
        return answer  # the score is there; where it is low can be asked for again
    score = lay(answer.score, found) if found else answer.score
    if score.map is None:
        return answer
    return answer._replace(score=score, overlay=_encoded(overlay(image, score), "JPEG"))


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _upload(path: Path) -> Upload:
    real = path.resolve()
    if not (real.is_relative_to(Path(get_upload_folder()).resolve()) and real.is_file()):
        raise gr.Error("only files that were uploaded here are scored; drop them again")
    return Upload(path.name, real.read_bytes())


def _ends_of(answers: Sequence[Answer]) -> tuple[int | None, int | None]:
    """Positions of the best and of the worst image; two of ``None`` where fewer than two have a score."""
    good = sorted(
        (answer.score.score, -i) for i, answer in enumerate(answers) if answer.score.score is not None
    )
    return (-good[-1][1], -good[0][1]) if len(good) > 1 else (None, None)
