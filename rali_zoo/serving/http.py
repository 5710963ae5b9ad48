"""``POST /score``, ``GET /health``, ``GET /model``: the service as an ASGI application on Starlette."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import python_multipart  # noqa: F401  Starlette needs it, and would say so only when the first form comes
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rali_zoo.serving.engine import (
    Answer,
    BusyError,
    Engine,
    Limits,
    Upload,
    caution,
    is_synthetic,
)

if TYPE_CHECKING:
    from starlette.types import Message

_log = logging.getLogger(__name__)
_NAME = 255  # characters of a file name that are repeated
_LINGER = 2.0  # seconds in which the rest of a refused request is read and thrown away
_HOW = "Send images as files of a form: curl -F images=@photo.jpg http://HOST:PORT/score"


def make_app(engine: Engine) -> Starlette:
    """The service.

    ``POST /score`` takes ``multipart/form-data`` with one or more files and answers ``{"model", "revision",
    "synthetic_labels", "scores": [{"name", "score", "std", "error", "width", "height"}]}``, one row a file,
    in order; with ``?explain=true`` rows have ``explanation`` and a reasoner's ``text`` too. A file that cannot
    be read is a row with ``error``, and the status stays 200. Requests that are refused as a whole get
    ``{"error"}``: 400 a form that cannot be read or has no file, 404, 405, 408 arrived too slowly, 413 too
    large, 415 no form, 503 busy or too many connections, 504 scoring took too long, 507 no room for the upload.

    Args:
        engine: closed when the application stops.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.warm_up)
        yield
        await asyncio.to_thread(engine.close)

    async def score(request: Request) -> Response:
        explain = _flag(request, "explain")
        uploads = await _receive(request, engine.limits)
        client = request.client.host if request.client else ""
        return JSONResponse(await _answer(engine, uploads, explain, client))

    async def health(_: Request) -> Response:
        state = {
            "status": "ok" if (alive := engine.alive) else "unavailable",
            "waiting_bytes": engine.waiting,
            "scored": engine.scored,
            "batches": engine.batches,
        }
        return JSONResponse(state, 200 if alive else 503)

    async def model(_: Request) -> Response:
        return JSONResponse(_about(engine))

    return Starlette(
        routes=[
            Route("/score", score, methods=["POST"]),
            Route("/health", health),
            Route("/model", model),
        ],
        exception_handlers={HTTPException: _refused, BusyError: _busy},
        lifespan=lifespan,
    )


def _about(engine: Engine) -> dict[str, Any]:
    scorer, limits = engine.scorer, engine.limits
    names = scorer.training_sets
    return {
        "model": scorer.name,
        "revision": engine.revision,
        "score_range": scorer.score_range,
        "higher_is_better": True,
        "training_sets": None if names is None else list(names),
        "synthetic_labels": is_synthetic(scorer),
        "note": caution(scorer),
        "limits": vars(limits),
    }


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false")
    if unknown := set(request.query_params) - {name}:
        raise HTTPException(400, f"unknown parameter {min(unknown)[:_NAME]!r}; there is {name}=true")
    if given not in ("true", "false"):
        raise HTTPException(400, f"{name}={given[:_NAME]!r}; it is true or false")
    return given == "true"


# ---- what comes in ----


class _TooLarge(Exception):
    pass


class _Body:
    """A request's messages, counted: a length that was declared may be a lie."""

    def __init__(self, request: Request, most: int) -> None:
        self._receive, self._most, self._seen = request.receive, most, 0
        self._ended = "expect" in request.headers  # a body that was never asked for

    async def __call__(self) -> Message:
        message = await self._receive()
        self._ended = not message.get("more_body", False)
        self._seen += len(message.get("body", b""))
        if self._seen > self._most:
            raise _TooLarge
        return message

    async def throw_away(self) -> None:
        """Read for a moment what is still coming.

        A connection that is closed on unread data is reset, and the client may never see why.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while not self._ended:
                    self._ended = not (await self._receive()).get("more_body", False)


async def _receive(request: Request, limits: Limits) -> list[Upload]:
    """The files of a form, whole and within the limits; raises :class:`HTTPException`."""
    most = limits.megabytes * 1_000_000
    body = _Body(request, most)
    try:
        if _media_type(request) != "multipart/form-data":
            raise HTTPException(415, _HOW)
        if int(request.headers.get("content-length", "0")) > most:
            raise _TooLarge
        async with asyncio.timeout(limits.seconds):
            # Files above 1 MB are on disk, without a name, until the form is closed.
            counted = Request(request.scope, body)
            async with counted.form(max_files=limits.images, max_fields=0, max_part_size=1024) as form:
                return await _uploads(form)
    except ClientDisconnect:
        raise HTTPException(400, "the client has gone") from None
    except TimeoutError:
        refused = HTTPException(408, f"the request took more than {limits.seconds:g} s to arrive")
    except _TooLarge:
        refused = HTTPException(413, f"more than {limits.megabytes} MB; send fewer or smaller images")
    except OSError as error:
        _log.error("an upload could not be kept: %s", error)
        refused = HTTPException(
            507, "there is no room for the upload; try again later, or send smaller images"
        )
    except HTTPException as error:
        refused = error if error.status_code == 415 else HTTPException(400, f"{error.detail} {_HOW}")
    await body.throw_away()
    refused.headers = {"connection": "close"}
    raise refused


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _uploads(form: FormData) -> list[Upload]:
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise HTTPException(400, "The form has no file.")
    return [Upload((file.filename or f"[{i}]")[:_NAME], await file.read()) for i, file in enumerate(files)]


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    reason = error.detail
    if error.status_code == 404:
        reason = "no such address; there are POST /score, GET /health, GET /model"
    elif error.status_code == 405:
        reason = f"{_HOW}; /health and /model are for GET"
    return JSONResponse({"error": reason}, error.status_code, error.headers)


async def _busy(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})


# ---- what goes out ----


async def _answer(engine: Engine, uploads: list[Upload], explain: bool, client: str) -> dict[str, Any]:
    futures = engine.submit(uploads, client)
    try:
        async with asyncio.timeout(engine.limits.seconds):
            answers = await asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
    except TimeoutError:
        raise HTTPException(
            504, f"scoring took more than {engine.limits.seconds:g} s; send fewer or smaller images"
        ) from None
    return {
        "model": engine.scorer.name,
        "revision": engine.revision,
        "synthetic_labels": is_synthetic(engine.scorer),
        "scores": [
            _row(upload.name, answer, explain) for upload, answer in zip(uploads, answers, strict=True)
        ],
    }


def _row(name: str, answer: Answer, explain: bool) -> dict[str, Any]:
    score = answer.score
    row: dict[str, Any] = {
        "name": name,
        "score": score.score,
        "std": score.std if score.std is not None and math.isfinite(score.std) else None,
        "error": score.error,
        "width": answer.width or None,
        "height": answer.height or None,
    }
    if score.warning:
        row["warning"] = score.warning
    if explain:
        row["explanation"] = [
            {"weight": weight, "score": value, "descriptions": list(texts)}
            for weight, value, texts in score.explanation
        ]
        row["text"] = score.text
    return row
