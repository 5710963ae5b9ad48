"""The command itself, with the real model: many clients at once, some of them hostile, and an orderly end."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="pip install 'rali-zoo[serve]'")
pytest.importorskip("python_multipart", reason="pip install 'rali-zoo[serve]'")
pytest.importorskip("uvicorn", reason="pip install 'rali-zoo[serve]'")

from serving_toys import ask, form, png_header, until

REQUESTS, CLIENTS = 200, 16

pytestmark = pytest.mark.slow


def jpeg(photo, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(384, 512, seed=seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def is_up(port: int) -> bool:
    """Whether the model is loaded; until then connections wait."""
    try:
        return ask(port, method="GET", path="/health")[0] == 200
    except TimeoutError:
        return False


@pytest.fixture(scope="module")
def service():
    """Process and port of ``rali-zoo serve``."""
    words = [sys.executable, "-m", "rali_zoo", "serve", "--model=rali-tiny-synthetic", "--port=0"]
    words += ["--max_megabytes=2", "--timeout=60"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None
        until(lambda: is_up(int(found[1])), seconds=400)
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()


def test_many_clients_some_hostile(service, photo):
    from rali_zoo.zoo import load_model

    _, port = service
    images = [jpeg(photo, seed) for seed in range(8)]
    wanted = [score.score for score in load_model("rali-tiny-synthetic").score(images)]
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def good(i: int) -> str:
        status, answer = ask(port, form((str(i), images[i % 8])))
        assert status == 200
        assert answer["scores"][0]["score"] == pytest.approx(wanted[i % 8], abs=1e-4)
        return "good"

    def bad_file(i: int) -> str:
        data = random.Random(i).choice([b"", os.urandom(999), png_header(20_000, 20_000), images[0][:999]])
        status, answer = ask(port, form(("../../x", data), ("ok", images[1])))
        assert status == 200 and answer["scores"][0]["error"]
        assert answer["scores"][1]["score"] == pytest.approx(wanted[1], abs=1e-4)
        return "bad file"

    def too_large(i: int) -> str:
        assert ask(port, form(("large", bytes(2_100_000))))[0] == 413
        return "too large"

    def no_form(i: int) -> str:
        assert ask(port, images[0], content_type="image/jpeg")[0] == 415
        return "no form"

    def gone(i: int) -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            line.sendall(b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\nabc")
        return "gone"

    def client(i: int) -> None:
        kind = (good, good, good, good, bad_file, good, too_large, good, no_form, gone)[i % 10](i)
        with lock:
            seen[kind] += 1

    idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(50)]
    for line in idle:
        line.sendall(b"POST /sc")  # and never more
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(REQUESTS)))
        began = time.perf_counter()
        list(pool.map(good, range(REQUESTS)))
        seconds = time.perf_counter() - began
    for line in idle:
        line.close()
    _, health = ask(port, method="GET", path="/health")
    print(
        f"\n{CLIENTS} clients, 512x384 JPEG, one a request: {REQUESTS / seconds:.1f} requests/s; in all "
        f"{health['scored']} images in {health['batches']} batches; {dict(seen)}"
    )
    assert seen["good"] == REQUESTS * 6 // 10 and sum(seen.values()) == REQUESTS
    assert health["waiting_bytes"] == 0
    assert health["batches"] < health["scored"]  # images that come together are scored together


def test_it_stops_in_order(service):
    process, port = service
    assert ask(port, method="GET", path="/health")[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stdout.read().strip() == "stopped"
