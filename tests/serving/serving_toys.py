"""A scorer of brightness that can be held up, a client of a few lines, and decoders that misbehave."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from rali_zoo.serving import decoding
from rali_zoo.types import Colour, Score

BOUNDARY = "toy-boundary"


class Brightness:
    """An image's mean brightness as its score; black images are more than it can take."""

    name = "toy"
    revision = "0"
    training_sets = ("synthetic:lab",)
    needs_reference = native_scale = False
    score_range = (1.0, 5.0)
    licence = ""
    colour: Colour = "srgb"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    def score(
        self, images: Sequence[Any] | Any, batch_size: int = 16, progress: Callable[[int], None] | None = None
    ) -> list[Score]:
        self.sizes.append(len(images))
        self.entered.set()
        assert self.gate.wait(60)
        means = [float(np.asarray(image).mean()) for image in images]
        if min(means) == 0:
            raise RuntimeError("a black image")
        return [Score(1 + 4 * mean / 255, std=0.5, model=self.name) for mean in means]


def image(level: int = 128, kind: str = "PNG", width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (level, level, level)).save(buffer, kind)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has nothing in it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def form(*files: tuple[str, bytes], media_type: str = "image/jpeg") -> bytes:
    """The body of a form with files of these names and bytes."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def ask(
    port: int,
    body: bytes | Iterator[bytes] | None = None,
    path: str = "/score",
    method: str = "POST",
    **headers: str,
) -> tuple[int, Any]:
    """Status and JSON (or text) of one request; ``_`` in a header's name stands for ``-``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"} if method == "POST" else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        text = answer.read().decode()
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(text) if kind.startswith("application/json") else text
    finally:
        connection.close()


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Port of an application that is served in a thread."""
    from rali_zoo.serving.server import listen, make_server

    place = listen("127.0.0.1", 0)
    server = make_server(app, "127.0.0.1")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield place.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.005)


# ---- in the place of rali_zoo.serving.decoding.decode; in the other process ----


def misbehave(data: bytes, max_pixels: int, preview: int, colour: Colour) -> decoding.SentImage:
    if data == b"sleep":
        time.sleep(600)
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"eat":
        bytes(2000 * max_pixels)
    return decoding.decode(data, max_pixels, preview, colour)
