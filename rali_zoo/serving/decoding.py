"""Decoding what strangers send, in processes of their own.

An image that takes too long, takes too much memory or crashes its decoder costs its process, which is
replaced, and one row of the answer. Nothing but Pillow and NumPy is imported there, and what comes back is
bytes, never a pickle.
"""

from __future__ import annotations

import io
import multiprocessing
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

from PIL import Image

from rali_zoo.data.images import load_image
from rali_zoo.errors import ImageDecodeError
from rali_zoo.types import Colour

#: Twice what the costliest format (WebP with transparency) was measured to take: 28 bytes a pixel.
_BYTES_A_PIXEL = 64
_SPARE = 512 * 2**20  # bytes, beside the pixels
_START_SECONDS = 120.0  # that a process may take to start, on a machine that is busy
_SIZES = struct.Struct("<II")
_READY, _IMAGE, _REASON = b"r", b"p", b"e"


class SentImage(NamedTuple):
    """An image as it comes out of the other process.

    Attributes:
        pixels: RGB, 8 bits, row by row.
        width: in pixels, upright.
        height: in pixels, upright.
        preview: a small JPEG; empty if none was asked for.
    """

    pixels: bytes
    width: int
    height: int
    preview: bytes

    def image(self) -> Image.Image:
        """The image."""
        return Image.frombytes("RGB", (self.width, self.height), self.pixels)


Decode = Callable[[bytes, int, int, Colour], SentImage]


def decode(data: bytes, max_pixels: int, preview: int, colour: Colour) -> SentImage:
    """Decode one image; runs in the other process.

    Args:
        data: of a file.
        max_pixels: refuse images of more pixels than this.
        preview: longer side of a small copy, in pixels; 0 for none.
        colour: as the scorer takes it.

    Raises:
        ImageDecodeError: why there is none.
    """
    image = load_image(data, max_pixels, colour)
    small = io.BytesIO()
    if preview:
        copy = image.copy()
        copy.thumbnail((preview, preview))
        copy.save(small, "JPEG", quality=85)
    return SentImage(image.tobytes(), image.width, image.height, small.getvalue())


def confine(spare: int) -> None:
    """Prepare the other process: at most ``spare`` more bytes of memory, no core dumps, no ^C of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":  # elsewhere the limit is not obeyed, or not there
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + spare if hard == resource.RLIM_INFINITY else min(used + spare, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _work(connection: Connection, function: Decode, max_pixels: int, preview: int, colour: Colour) -> None:
    """The other process: files come in, pixels or reasons go out, until the pipe is closed."""
    confine(_BYTES_A_PIXEL * max_pixels + _SPARE)
    connection.send_bytes(_READY)
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        try:
            found = function(data, max_pixels, preview, colour)
        except ImageDecodeError as error:
            connection.send_bytes(_REASON + str(error).encode("utf-8", "replace"))
        except MemoryError:
            connection.send_bytes(_REASON + b"not enough memory to decode it")
        else:
            connection.send_bytes(_IMAGE + _SIZES.pack(found.width, found.height) + found.preview)
            connection.send_bytes(found.pixels)


class _Decoder:
    """One such process, as its owner sees it."""

    def __init__(self, max_pixels: int, preview: int, colour: Colour) -> None:
        # Not forked: a copy of a process with torch and threads may hang, and would hold all of its memory.
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._ready = False
        self.process = context.Process(
            target=_work, args=(other, decode, max_pixels, preview, colour), daemon=True, name="decode"
        )
        self.process.start()
        other.close()  # so that the end of the process is the end of the pipe

    def __call__(self, data: bytes, seconds: float) -> SentImage:
        """Decode one image; raises TimeoutError, EOFError or OSError when the process is of no more use."""
        if not self._ready:
            self._answer(_START_SECONDS)
            self._ready = True
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        # One that is stopped neither reads nor writes, and no pipe has a timeout: killed, it is an end of file.
        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            self._pipe.send_bytes(data)
            answer = self._pipe.recv_bytes()
            kind, rest = answer[:1], answer[1:]
            if kind == _REASON:
                raise ImageDecodeError(rest.decode())
            width, height = _SIZES.unpack_from(rest)
            return SentImage(self._pipe.recv_bytes(), width, height, rest[_SIZES.size :])
        except (EOFError, OSError):
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    def _answer(self, seconds: float) -> bytes:
        if not self._pipe.poll(seconds):
            raise TimeoutError
        return self._pipe.recv_bytes()

    def kill(self) -> None:
        """End the process, whatever it is at."""
        self.process.kill()
        self.process.join()

    def close(self) -> None:
        """As :meth:`kill`, when nobody waits for the process."""
        self.kill()
        self._pipe.close()


def _runs(pid: int | None) -> bool:
    """Whether the system lets a process run; as far as that can be seen, which is on Linux."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "Tt"
    except (OSError, IndexError):
        return True


class DecodePool:
    """Processes that decode images.

    Args:
        workers: how many.
        max_pixels: refuse images of more pixels than this.
        seconds: an image may take; its process is killed then.
        preview: longer side of a small copy, in pixels; 0 for none.
        colour: as the scorer takes it.
    """

    def __init__(
        self, workers: int, max_pixels: int, seconds: float, preview: int = 0, colour: Colour = "srgb"
    ) -> None:
        self.max_pixels, self.seconds, self.preview, self.colour = max_pixels, seconds, preview, colour
        self._closed = False
        self._all = {self._start() for _ in range(workers)}
        self._idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        for decoder in self._all:
            self._idle.put(decoder)

    @property
    def alive(self) -> bool:
        """Whether every process is there and not stopped."""
        return not self._closed and all(_runs(d.process.pid) for d in list(self._all) if d.process.is_alive())

    def _start(self) -> _Decoder:
        return _Decoder(self.max_pixels, self.preview, self.colour)

    def __call__(self, data: bytes) -> SentImage:
        """Decode one image; may be called from several threads.

        Raises:
            ImageDecodeError: why there is none.
        """
        decoder = self._idle.get()
        try:
            if not self._closed and not decoder.process.is_alive():  # it died while it was idle
                decoder = self._replace(decoder)
            return decoder(data, self.seconds)
        except (TimeoutError, EOFError, OSError) as error:
            if self._closed:
                raise ImageDecodeError("the service is stopping") from None
            decoder = self._replace(decoder)
            if isinstance(error, TimeoutError):
                raise ImageDecodeError(f"decoding took longer than {self.seconds:g} s") from None
            raise ImageDecodeError("its decoder crashed") from None
        finally:
            self._idle.put(decoder)

    def _replace(self, decoder: _Decoder) -> _Decoder:
        self._all.discard(decoder)
        decoder.close()
        new = self._start()
        self._all.add(new)
        if self._closed:  # too late for close() to see it
            new.kill()
        return new

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self._closed = True
        for decoder in list(self._all):
            decoder.kill()
