"""The page: its HTML, and what a browser makes of it."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_toys import BOUNDARY, form, image, served

from rali_zoo.serving.cards import cards, comparison, header
from rali_zoo.serving.engine import Answer
from rali_zoo.types import Score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RANGE = (1.0, 5.0)
NASTY = '<img src=x onerror="alert(1)">${1+1}{{name}}'


def answer(score=3.0, std=0.5, path="a.png", error=None, texts=("blurred",)) -> Answer:
    reasons = ((0.6, 2.5, texts), (0.2, 4.0, ()))
    return Answer(Score(score, std, error, path, "toy", reasons if error is None else ()), 64, 48, b"jpeg")


# ---- HTML ----


def test_nothing_from_a_file_or_a_model_is_markup() -> None:
    shown = [
        cards([answer(path=NASTY, texts=(NASTY,)), answer(None, error=NASTY, path=NASTY)], RANGE, NASTY),
        comparison(answer(path=NASTY), answer(2.0, path=NASTY), RANGE),
        header(NASTY, RANGE, NASTY),
    ]
    for html in shown:
        assert "onerror" in html and "<img src=x" not in html
        assert not re.search(r"\$\{|\{\{", html)


def test_a_card_says_score_spread_scale_and_reasons() -> None:
    html = cards([answer(3.0, 0.5)], RANGE)
    assert "3.00" in html and "± 0.50" in html and "64 × 48 pixels" in html
    assert "left:50.0%" in html and "left:37.5%;width:25.0%" in html
    assert "60%" in html and "blurred" in html and "no description was kept" in html
    assert "<details open>" in html and "<details open>" not in cards([answer()] * 4, RANGE)
    own_scale = cards([answer(31.0, None)], None)
    assert "31.00" in own_scale and "±" not in own_scale and 'class="scale"' not in own_scale
    other = cards([answer(80.0, 50.0)], (0.0, 100.0))
    assert "left:80.0%" in other and "left:30.0%;width:70.0%" in other and "100 (high)" in other
    failed = cards([answer(None, None, error="the file is empty")], RANGE)
    assert "No score: the file is empty" in failed and "details" not in failed


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            answer(4.0, path="a"),
            answer(3.0, path="b"),
            "<b>a</b> scores 1.00 higher than <b>b</b>, which is more",
        ),
        (
            answer(3.0, path="a"),
            answer(3.4, path="b"),
            "<b>b</b> scores 0.40 higher than <b>a</b>, which is less",
        ),
        (answer(3.0, None), answer(3.4, None), "does not say how sure"),
        (answer(3.0), answer(3.001), "Both have the same score."),
        (answer(3.0), answer(None, error="empty"), "One of the two has no score."),
    ],
)
def test_the_answer_minds_the_std(first: Answer, second: Answer, said: str) -> None:
    assert said in comparison(first, second, RANGE)


# ---- the application ----


@pytest.fixture(scope="module")
def scorer():
    from rali_zoo.zoo import load_model

    return load_model("rali-tiny-synthetic")


@pytest.fixture(scope="module")
def page(scorer, tmp_path_factory) -> Iterator[str]:
    """Address of the app."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        pytest.importorskip("gradio", reason="pip install 'rali-zoo[app]'")
        from rali_zoo.serving.app import PREVIEW, make_app
        from rali_zoo.serving.engine import Engine

        with served(make_app(Engine(scorer, workers=1, preview=PREVIEW))) as port:
            yield f"127.0.0.1:{port}"


@pytest.mark.slow
def test_the_page_may_load_nothing_from_elsewhere(page: str) -> None:
    connection = http.client.HTTPConnection(page, timeout=60)
    connection.request("GET", "/")
    found = connection.getresponse()
    html = found.read().decode()
    assert found.status == 200 and "default-src 'self'" in found.headers["content-security-policy"]
    sources = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="([^"]+)"', html)
    assert sources and not [name for name in sources if re.match(r"(https?:)?//(?!127\.0\.0\.1)", name)]
    client = _Client(page)
    for name in sources:
        place = "/" + re.sub(r"^https?://[^/]+", "", name).lstrip("./")
        assert client.ask("GET", place)[0] == 200, f"the page needs {place}"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def files(photo, tmp_path: Path) -> list[Path]:
    from PIL import Image, ImageFilter

    sharp = Image.fromarray(photo(240, 320, seed=1))
    names = ["<b>sharp ${1+1}.png", "blurred.png", "broken.jpg"]
    sharp.save(tmp_path / names[0])
    sharp.filter(ImageFilter.GaussianBlur(6)).save(tmp_path / names[1])
    (tmp_path / names[2]).write_bytes(b"no image")
    return [tmp_path / name for name in names]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_drop_score_explain_compare(page, browser, scorer, files, scheme, width) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 850})
    tab = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: wrong.append(dialog.message))
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.set_default_timeout(60_000)
    tab.goto(f"http://{page}/")
    tab.wait_for_selector("text=no judge of real photographs")
    drop = tab.locator("#images input[type=file]")
    drop.wait_for(state="attached")
    assert tab.locator("#compare").count() == 0 or not tab.locator("#compare").is_visible()
    drop.set_input_files(files)
    tab.wait_for_selector("#pair .card")
    numbers = [f"{score.score:.2f}" for score in scorer.score(files[:2])]
    assert tab.locator("#scores .number").all_inner_texts() == numbers
    assert tab.locator("#scores .card").count() == 3 and tab.locator("#scores b img").count() == 0
    assert "no known image format" in tab.locator("#scores .error").inner_text()
    assert tab.locator("#scores .reason").count() == 6
    assert tab.locator("#scores .map img").count() == 2
    assert sorted(tab.locator("#pair .number").all_inner_texts()) == sorted(numbers)
    assert "higher than" in tab.locator("#pair .difference").inner_text()
    tab.locator("#second input").click()
    tab.locator("#second [role=option]", has_text="broken").click()
    tab.wait_for_selector("#pair >> text=One of the two has no score.")
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 200) == (scheme == "dark")
    tab.locator("#images [aria-label='Remove this file'], #images button[aria-label*='lear']").first.click()
    tab.wait_for_function("document.querySelectorAll('#scores .card').length < 3")
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {page}
    assert wrong == []
    context.close()


def test_where_it_is_bad_stands_beside_why(engine) -> None:
    """Regions of the preview go through the engine as all images do."""
    pytest.importorskip("gradio", reason="pip install 'rali-zoo[app]'")
    import io

    import numpy as np
    from PIL import Image

    from rali_zoo.serving.app import _scored_few
    from rali_zoo.serving.cards import card
    from rali_zoo.serving.engine import Upload

    warned = card(Answer(Score(3.0, warning="20x20 pixels: <small>")), None, unfold=False)
    assert '<p class="caution">20x20 pixels: &lt;small&gt;</p>' in warned
    assert "caution" not in card(Answer(Score(3.0)), None, unfold=False)

    pixels = np.full((128, 128, 3), 200, np.uint8)
    pixels[96:, :32] = 10  # the toy scores brightness
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    made = engine(preview=128, attributes=True)
    (one,) = _scored_few(made, [Upload("a.png", data.getvalue())])
    assert "contrast" in one.score.words and f"Measured on it: {one.score.words}." in card(one, RANGE, True)
    assert one.score.map is not None and np.argmin(one.score.map) == 12 and one.overlay[:3] == b"\xff\xd8\xff"
    html = cards([one], RANGE)
    assert "lowest bottom, left" in html and html.count("<img") == 2


def test_a_broken_image_among_good_ones(engine) -> None:
    """What the engine answers is what the cards show, previews included."""
    made = engine(preview=32)
    from rali_zoo.serving.engine import Upload

    found = [f.result(60) for f in made.submit([Upload("a", image()), Upload("b", b"")])]
    html = cards(found, RANGE)
    assert html.count('class="card"') == 2 and "the file is empty" in html and "data:image/jpeg" in html


# ---- what a client may reach ----


class _Client:
    """Somebody with a cookie of the app."""

    def __init__(self, page: str, cookie: str | None = None) -> None:
        self.page, self.cookie = page, ""
        self.cookie = cookie if cookie is not None else self.ask("GET", "/")[1]["set-cookie"].split(";")[0]

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"):
        connection = http.client.HTTPConnection(self.page, timeout=60)
        connection.request(method, path, body, {"cookie": self.cookie, "content-type": kind})
        found = connection.getresponse()
        try:
            return found.status, found.headers, found.read()
        finally:
            connection.close()

    def upload(self, data: bytes) -> str:
        body = form(("a.png", data)).replace(b'name="images"', b'name="files"')
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return json.loads(self.ask("POST", "/gradio_api/upload", body, kind)[2])[0]

    def event(self, value: object, number: int = 0) -> tuple[int, str]:
        """Status of an event with a value, and what the app answers to it."""
        event = {"data": value, "fn_index": number, "session_hash": f"s{time.monotonic_ns()}"}
        status, _, body = self.ask("POST", "/gradio_api/queue/join", json.dumps(event).encode())
        if status != 200:
            return status, body.decode()
        return status, self.ask("GET", f"/gradio_api/queue/data?session_hash={event['session_hash']}")[
            2
        ].decode()


def _file(path: str) -> dict[str, object]:
    return {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}


def test_a_client_scores_what_it_uploaded_and_nothing_else(page: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(image(60))
    mine, other = _Client(page), _Client(page)
    path = mine.upload(image(90))
    status, answer = mine.event([[_file(path)]])
    assert status == 200 and "64 × 48 pixels" in json.loads(f'"{_escaped(answer)}"')
    assert other.event([[_file(path)]])[0] == 403, "another client's upload"
    assert _Client(page, cookie="").event([[_file(path)]])[0] == 403
    tricks = [
        str(secret),
        "/etc/passwd",
        "/dev/zero",
        f"{path}/../../../../../etc/passwd",
        "http://127.0.0.1:1/a",
    ]
    for trick in tricks:
        for value in ([[_file(path), _file(trick)]], [None, _file(trick), 0], [{"deep": [[_file(trick)]]}]):
            for number in (0, 1, 2):
                status, answer = mine.event(value, number)
                assert status == 403 and "root:" not in answer, (trick, value)


def test_no_route_hands_out_files(page: str, tmp_path: Path) -> None:
    mine = _Client(page)
    path = mine.upload(image(91))
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    names = [str(secret), "/etc/passwd", path, "http://127.0.0.1:1/", str(Path(path).parent)]
    routes = [
        "/gradio_api/file=",
        "/file=",
        "/gradio_api/file/",
        "/gradio_api/proxy=",
        "/proxy=",
        "//gradio_api/file=",
    ]
    for route in routes:
        for name in names:
            for method in ("GET", "HEAD", "POST"):
                status, _, body = mine.ask(method, f"{route}{name}")
                assert status in (404, 405) and b"secret" not in body and b"root:" not in body, (route, name)
    for name in (
        "deep_link?session_hash=a",
        "component_server",
        "run/score",
        "call/score",
        "stream/a/b/c/d.ts",
    ):
        assert {mine.ask(m, f"/gradio_api/{name}")[0] for m in ("GET", "POST")} == {404}
    for escape in (
        "/static/../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
    ):
        assert mine.ask("GET", escape)[0] in (403, 404)
    assert mine.ask("GET", "/?deep_link=../../etc")[0] == 200


def _escaped(text: str) -> str:
    return text.replace('\\"', "'").replace('"', "'").replace("\n", " ").replace("\\'", "'")
