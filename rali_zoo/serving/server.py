"""Connections: one uvicorn server for the service and the app, with what uvicorn leaves open closed."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from rali_zoo.errors import ConfigError

#: Seconds in which the first line and the headers of a request are to arrive.
HEADER_SECONDS = 10.0
#: Connections at a time; more are told to come back.
CONNECTIONS = 256
_LINGER_SECONDS = 10  # that running requests get when the server is stopped


class Protocol(H11Protocol):
    """HTTP/1.1 that ends connections whose request line and headers do not arrive.

    uvicorn limits how long a connection may be idle between requests, not how slowly headers may trickle in.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request that is not whole, and no longer for one that is."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._late is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Leave waiting to uvicorn's limit for idle connections."""
        self._stop()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: name or address.
        port: 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had; the message says what to do.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is not between 0 and 65535; 0 takes a free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found[4][:2], family=found[0], backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error.strerror or error}); "
            "another --port may do, 0 takes a free one"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_server(app: ASGIApp, host: str) -> uvicorn.Server:
    """A server for an ASGI application; it listens where :meth:`uvicorn.Server.run` is told.

    On a loopback address, requests that ask for another host by name are refused: a page of the web that
    has its name point here (DNS rebinding) cannot read scores.
    """
    if is_loopback(host):
        app = TrustedHostMiddleware(app, ["localhost", "127.0.0.1", "[::1]", host], www_redirect=False)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_LINGER_SECONDS,
    )
    return uvicorn.Server(config)


def serve(make: Callable[[], ASGIApp], host: str, port: int, what: str) -> None:
    """Serve an ASGI application until SIGINT or SIGTERM; running requests are answered first.

    Args:
        make: the application; called once the address is had, so that a model is not loaded in vain.
        host: where to listen.
        port: 0 takes a free one.
        what: to say that it is there.

    Raises:
        ConfigError: the address cannot be had.
    """
    with listen(host, port) as place:
        taken = place.getsockname()[1]
        server = make_server(make(), host)
        shown = f"[{host}]" if ":" in host else host
        print(f"{what} at http://{shown}:{taken} (stop it with Ctrl-C)", flush=True)
        if not is_loopback(host):
            print(
                f"{host} may be reached from other machines: there is no password and no encryption",
                file=sys.stderr,
            )
        # uvicorn raises the signal again when it is done; this makes an ordinary end of it.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[place])
        finally:
            signal.signal(signal.SIGTERM, before)
    print("stopped")
