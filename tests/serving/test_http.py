"""The service over real connections: what is scored, what is refused, and who cannot hold it up."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="pip install 'rali-zoo[serve]'")
pytest.importorskip("python_multipart", reason="pip install 'rali-zoo[serve]'")
pytest.importorskip("uvicorn", reason="pip install 'rali-zoo[serve]'")

from serving_toys import BOUNDARY, ask, form, image, png_header, served, until

from rali_zoo.errors import ConfigError
from rali_zoo.serving import http, server
from rali_zoo.serving.engine import Limits, Upload
from rali_zoo.serving.http import make_app

HEAD = (
    f"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
)


@pytest.fixture
def start(engine):
    """Maker of running services: ``with start(limits) as (port, engine)``."""
    from contextlib import contextmanager

    @contextmanager
    def begin(limits=None):
        made = engine(limits)
        with served(make_app(made)) as port:
            yield port, made

    return begin


def one(port, name="a.png", data=None):
    """The row of one image."""
    status, answer = ask(port, form((name, image() if data is None else data)))
    assert status == 200
    (row,) = answer["scores"]
    return row


def test_rows_and_descriptions_of_the_service(start):
    with start(Limits(images=3, megapixels=2)) as (port, made):
        files = form(("a.png", image(51)), ("b.jpg", image(204, "JPEG")), ("c.jpg", b"broken"))
        status, answer = ask(port, files)
        assert status == 200
        assert [row["name"] for row in answer["scores"]] == ["a.png", "b.jpg", "c.jpg"]
        first, _, last = answer["scores"]
        assert first == {"name": "a.png", "score": 1.8, "std": 0.5, "error": None, "width": 64, "height": 48}
        assert last["score"] is None and last["width"] is None and "no known image" in last["error"]
        assert (answer["model"], answer["revision"], answer["synthetic_labels"]) == ("toy", "0", True)
        _, explained = ask(port, files, "/score?explain=true")
        assert [row["explanation"] for row in explained["scores"]] == [[], [], []]
        status, about = ask(port, method="GET", path="/model")
        assert status == 200 and about["training_sets"] == ["synthetic:lab"] and "no judge" in about["note"]
        assert about["limits"]["images"] == 3 and about["score_range"] == [1.0, 5.0]
        status, health = ask(port, method="GET", path="/health")
        assert status == 200 and health["status"] == "ok" and health["scored"] == made.scored > 4


def test_hostile_files_cost_a_row_each(start):
    files = {
        "zero": (b"", "the file is empty"),
        "garbage": (bytes(range(256)) * 40, "no known image format"),
        "bomb.png": (png_header(20_000, 20_000), "exceeds limit"),
        "wide.png": (png_header(60_000, 1_000), "the limit is 2,000,000"),
        "cut.jpg": (image(90, "JPEG", 640, 480)[:500], "cannot be decoded"),
        "page.html": (b"<html>404</html>", "it is a web page"),
        "../../../etc/passwd": (b"not a path", "no known image format"),
        "C:\\windows\\x.jpg": (b"nor this", "no known image format"),
        "/dev/zero": (image(), None),
        "ünïcode ☂.png": (image(), None),
    }
    with start(Limits(megapixels=2)) as (port, _):
        body = form(*((name, data) for name, (data, _) in files.items()), media_type="text/html")
        status, answer = ask(port, body)
        assert status == 200
        for row, (name, (_, reason)) in zip(answer["scores"], files.items(), strict=True):
            assert row["name"] == name.removeprefix("C:\\windows\\")  # as the form's parser has it
            assert (row["error"] is None) == (reason is None) == (row["score"] is not None)
            assert reason is None or reason in row["error"]
        assert one(port)["error"] is None


def test_refused_requests_say_why(start):
    good = form(("a.png", image()))
    field = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--{BOUNDARY}--\r\n'.encode()
    )
    cases = [
        (415, "curl -F", {"body": b"{}", "content-type": "application/json"}),
        (415, "curl -F", {"body": image(), "content-type": "image/png"}),
        (400, "has no file", {"body": f"--{BOUNDARY}--\r\n".encode()}),
        (400, "Maximum number of fields", {"body": field}),
        (400, "Missing boundary", {"body": good, "content-type": "multipart/form-data"}),
        (400, "curl -F", {"body": b"no form at all"}),
        (400, "Maximum number of files is 2", {"body": form(*[("a", image())] * 3)}),
        (400, "explain=true", {"body": good, "path": "/score?explian=true"}),
        (400, "true or false", {"body": good, "path": "/score?explain=maybe"}),
        (404, "/health", {"body": good, "path": "/scores"}),
        (405, "for GET", {"method": "GET"}),
        (413, "more than 1 MB", {"body": form(("large", bytes(1_100_000)))}),
        (413, "more than 1 MB", {"body": iter([form(("large", bytes(600_000)))] * 2)}),  # no length declared
        (400, "Invalid host", {"body": good, "Host": "evil.example"}),
    ]
    with start(Limits(images=2, megabytes=1)) as (port, _):
        for status, reason, request in cases:
            found = ask(port, **request)
            assert found[0] == status and reason in str(found[1]), (request.get("path"), found)
        assert one(port)["error"] is None


def test_a_length_that_is_a_lie(start):
    with start(Limits(megabytes=1)) as (port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall((HEAD + "Content-Length: 99999999999999\r\n\r\n").encode())
            assert b" 413 " in line.recv(4096)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall((HEAD + "Content-Length: 900000\r\n\r\nonly this").encode())
        assert one(port)["error"] is None


def test_slow_clients_are_hung_up_on(start, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.6)
    monkeypatch.setattr(http, "_LINGER", 0.2)
    with start(Limits(seconds=1.5)) as (port, _):
        assert one(port)["error"] is None
        slow = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(20)]
        slow[0].sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in slow[0].recv(4096)  # a second request on the same connection is no better
        began = time.monotonic()
        for line in slow:
            line.sendall(b"POST /score HTTP/1.1\r\nHo")
        assert one(port)["error"] is None
        for line in slow:
            with line, pytest.raises(ConnectionResetError):
                while line.recv(4096):
                    pass
                raise ConnectionResetError  # closed is as good
        assert time.monotonic() - began < 15
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall((HEAD + "Content-Length: 5000\r\n\r\n").encode())
            assert b" 408 " in line.recv(4096)
        assert one(port)["error"] is None


def test_busy_and_too_slow_to_answer(start):
    with start(Limits(waiting_megabytes=1, seconds=1.0)) as (port, made):
        made.scorer.gate.clear()
        waiting = made.submit([Upload("large", image() + bytes(990_000))])
        status, answer = ask(port, form(("b", image() + bytes(20_000))))
        assert (status, "try again" in answer["error"]) == (503, True)
        status, answer = ask(port, form(("small", image())))
        assert (status, "took more than 1 s" in answer["error"]) == (504, True)
        made.scorer.gate.set()
        assert waiting[0].result(30).score.error is None
        until(lambda: made.waiting == 0)
        assert one(port)["error"] is None


def test_a_full_disk_for_uploads_is_said_and_passes(start, monkeypatch):
    large = image() + bytes(3_000_000)  # above what is kept in memory
    with start() as (port, _):
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "w+b"))  # noqa: SIM115
            status, answer = ask(port, form(("large", large)))
        assert status == 507 and "no room for the upload" in answer["error"]
        assert ask(port, form(("large", large)))[0] == 200


def test_stopping_answers_the_running_request_first(start):
    pool = ThreadPoolExecutor(1)
    with start() as (port, made):
        assert one(port)["error"] is None
        made.scorer.entered.clear()
        made.scorer.gate.clear()
        row = pool.submit(one, port)
        assert made.scorer.entered.wait(30)
        threading.Timer(0.5, made.scorer.gate.set).start()
        # The end of this block asks the server to stop, while the image is in the model.
    assert row.result(30)["error"] is None
    pool.shutdown()
    assert not made.alive
    with pytest.raises(ConnectionRefusedError):
        ask(port, method="GET", path="/health")


def test_addresses(start):
    with start() as (port, _), pytest.raises(ConfigError, match="another --port"):
        server.listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="between 0 and 65535"):
        server.listen("127.0.0.1", 70_000)
    assert server.is_loopback("::1") and server.is_loopback("localhost")
    assert not server.is_loopback("0.0.0.0") and not server.is_loopback("example.org")
