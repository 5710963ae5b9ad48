"""The page: its files, and what a browser makes of them."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from board_fixtures import ODD_NAME, make_results

from rali_zoo.bench.leaderboard import COMPARED, Board, Column, leaderboard
from rali_zoo.bench.page import STATIC, page_files, write_page
from rali_zoo.bench.page.gmad import gmad_pairs, write_images
from rali_zoo.bench.reported import read_reported

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPORTED = Path(__file__).resolve().parents[2] / "benchmarks" / "reported.yaml"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return leaderboard(make_results(tmp_path_factory.mktemp("results")), read_reported(REPORTED))


@pytest.fixture(scope="module")
def folder(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_page(board, folder, images=False)
    return folder


# ---- files ----


def test_the_bytes_do_not_vary(board: Board, folder: Path, tmp_path: Path) -> None:
    write_page(board, tmp_path, images=False)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_nothing_comes_from_the_network() -> None:
    html = (STATIC / "index.html").read_text()
    loaded = re.findall(r'(?:<script[^>]*src|<link[^>]*href)="([^"]+)"', html)
    assert loaded and all(not re.match(r"(https?:)?//", name) for name in loaded)
    files = {name for name in loaded if not name.startswith("data:")} - {"data.js", "images.js"}
    assert all((STATIC / name).is_file() for name in files)
    for library in ("tabulator", "d3", "plot"):
        assert (STATIC / "vendor" / f"{library}.LICENSE.txt").is_file()
    assert sum(p.stat().st_size for p in STATIC.rglob("*")) < 1.2e6


def test_data_is_strict_json(board: Board) -> None:
    text = page_files(board)["data.js"].decode("ascii")
    data = json.loads(text.removeprefix("window.BOARD = ").removesuffix(";\n"))
    assert [c["labels"] for c in data["columns"]] == ["human", "human", "synthetic"]
    assert {r["label"] for r in data["rows"]} >= {"good", "gone", "constant"}
    assert data["reported_cells"][0]["model"] == "From a paper"
    assert "From a paper" not in {r["label"] for r in data["rows"]}


def test_gmad_pairs_differ_for_the_attacker_alone(board: Board) -> None:
    column = next(c for c in board.columns if c.dataset.key == "koniq10k")
    pairs = gmad_pairs(column, board)
    rows = {name: i for i, name in enumerate(column.targets.ids)}
    scores = {
        r.model.key: np.array(r.cells["koniq10k"].scores, float) for r in board.rows if "koniq10k" in r.cells
    }
    assert {p.level for p in pairs} == {0, 1} and len(pairs) == 2 * 3 * 2  # three models count
    for pair in pairs:
        better, worse = rows[pair.better], rows[pair.worse]
        attacker, defender = scores[pair.attacker], scores[pair.defender]
        assert attacker[better] >= attacker[worse]
        assert abs(defender[better] - defender[worse]) < 0.5 * defender.std()
        assert pair.mos == (column.targets.mos[better], column.targets.mos[worse])


def test_no_gmad_without_published_scores(board: Board) -> None:
    assert gmad_pairs(next(c for c in board.columns if c.dataset.key == "livec"), board) == []


def test_images_of_synthetic_pairs(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from rali_zoo.data.tables import load_table

    ref = "synthetic:lab?n=60&size=64"
    frame = load_table(ref).frame
    column = next(c for c in board.columns if c.labels == "synthetic")
    # The made-up scores, as if they were of the first rows of a real synthetic set.
    ids = [*frame["id"], *(f"gone-{i}.png" for i in range(60))]
    targets = column.targets.model_copy(update={"ids": ids})
    real: Column = replace(column, dataset=column.dataset.model_copy(update={"ref": ref}), targets=targets)
    shown = write_images(replace(board, columns=(real,)), tmp_path / "images")
    wanted = {name for p in gmad_pairs(real, board) for name in (p.better, p.worse)}
    found = shown[real.dataset.key]
    assert set(found) == {name for name in wanted if not name.startswith("gone-")} and found
    for name, image in found.items():
        source = Path(frame.set_index("id").loc[name, "path"])
        assert (tmp_path / image["file"]).read_bytes() == source.read_bytes() and image["credit"]


# ---- browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, folder: Path, width: int) -> tuple[Page, list[str]]:
    """The page, and a list that fills with whatever it complains of or asks the network for."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    wrong: list[str] = []
    complaints = ("error", "warning")
    page.on("console", lambda m: wrong.append(m.text) if m.type in complaints else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
    page.goto(f"file://{folder}/index.html")
    page.wait_for_selector(".tabulator-row")
    return page, wrong


@pytest.fixture(scope="module")
def desk(browser: Browser, folder: Path) -> tuple[Page, list[str]]:
    """The page on a wide screen, opened once; a test leaves the table as it found it."""
    return opened(browser, folder, 1280)


def names(page: Page) -> list[str]:
    return page.locator(".tabulator-row button.model").all_inner_texts()


def test_table_sorts_and_filters(desk: tuple[Page, list[str]], board: Board) -> None:
    page, wrong = desk
    assert names(page) == [row.label for row in board.rows]
    page.locator("#sort").select_option("set_2")
    assert names(page)[:3] == ["leaked", "good", ODD_NAME]
    assert set(names(page)[-2:]) == {"constant", "gone"}  # without a number: last
    heading = page.locator(".tabulator-col[tabulator-field='set_2']")
    heading.click()  # the other way round
    assert names(page)[0] == "backwards" and set(names(page)[-2:]) == {"constant", "gone"}
    heading.focus()
    page.keyboard.press("Enter")
    assert names(page)[0] == "leaked"
    page.locator("#sort").select_option("place")
    assert names(page) == [row.label for row in board.rows]
    page.locator("#kind").select_option("FR")
    assert names(page) == ["failing"]
    page.locator("#kind").select_option("")
    page.locator("#search").fill("pyiqa back")
    assert names(page) == ["backwards"] and page.locator("#count").inner_text() == "1 of 7 models"
    page.locator("#search").fill("nothing of the kind")
    assert names(page) == [] and page.get_by_text("No model fits these filters.").is_visible()
    page.locator("#search").fill("")
    assert len(names(page)) == 7 and wrong == []


def test_cells_tell_the_truth(desk: tuple[Page, list[str]]) -> None:
    page, wrong = desk

    def cell(name: str, field: str) -> str:
        row = page.locator(".tabulator-row").filter(has=page.get_by_role("button", name=name, exact=True))
        return row.locator(f".tabulator-cell[tabulator-field='{field}']").inner_text()

    assert cell("backwards", "set_0").startswith("-0.")
    assert "13 failed → 0." in cell("failing", "set_2") and "?" in cell("failing", "set_2")
    assert "undefined" in cell("constant", "set_0") and "all 100 predictions are 3" in cell(
        "constant", "set_0"
    )
    assert "its weights cannot be downloaded" in cell("gone", "set_0")
    assert "‡" in cell("leaked", "set_0") and cell("leaked", "set_1") == "not run"
    assert "synthetic" in page.locator(".tabulator-col[tabulator-field='set_2']").inner_text()
    page.locator("#metric").select_option("rmse")
    assert cell("good", "set_0").startswith("0.5")  # raw, on the MOS scale
    page.locator("#metric").select_option("srcc")
    assert wrong == []


def test_hover_and_details(desk: tuple[Page, list[str]]) -> None:
    page, wrong = desk
    page.locator(".tabulator-row .tabulator-cell[tabulator-field='set_0']").first.hover()
    tip = page.locator(".tabulator-tooltip")
    tip.wait_for()
    assert "KRCC" in tip.inner_text() and "100 of 100, 0 failed" in tip.inner_text()
    page.mouse.move(5, 5)
    page.get_by_role("button", name="leaked", exact=True).focus()
    page.keyboard.press("Enter")
    text = page.locator("#details").inner_text()
    assert "training rows of koniq10k?protocol=whole" in text and "synthetic labels" in text
    page.keyboard.press("Escape")
    assert not page.locator("#details").is_visible()
    assert wrong == []


def test_plots(desk: tuple[Page, list[str]]) -> None:
    page, wrong = desk
    assert page.locator("#pareto-plot svg circle, #pareto-plot svg path[d]").count() > 2
    assert "good" in page.locator("#pareto-caption").inner_text()
    page.locator("#pareto-x").select_option("parameters")
    assert "Parameters used" in page.locator("#pareto-plot").inner_text()
    page.locator('[data-dataset="significance"]').select_option("1")
    assert "may not be published" in page.locator("#significance-plot").inner_text()
    page.locator('[data-dataset="significance"]').select_option("0")
    box = page.locator("#significance-plot rect").first
    box.scroll_into_view_if_needed()
    box.hover()
    page.wait_for_function("document.querySelector('#significance-plot').textContent.includes('(Holm)')")
    marks = page.locator("#significance-plot").text_content() or ""
    assert "▲" in marks and "▼" in marks and "·" in marks
    assert page.locator("#distortions-plot rect").count() == 3 * 5  # distortions, models defined there
    assert "Synthetic labels" in page.locator("#distortions-caption").inner_text()
    assert page.locator("#gmad-pairs .pair").count() == 2
    assert wrong == []


def test_names_are_text_never_markup(desk: tuple[Page, list[str]]) -> None:
    page, wrong = desk
    assert ODD_NAME in names(page)
    assert page.locator("img[src='x']").count() == 0
    assert wrong == []


def test_reported_numbers_stand_apart(desk: tuple[Page, list[str]]) -> None:
    page, _ = desk
    section = page.locator("#reported")
    assert "Reported by authors, not measured here" in section.inner_text()
    assert "0.939 / 0.922" in section.inner_text() and "From a paper" in section.inner_text()
    assert "RALI" not in page.locator("#board").inner_text()
    assert section.evaluate("e => getComputedStyle(e).borderStyle") == "dashed"


def test_contrast_and_phone_width(browser: Browser, folder: Path) -> None:
    page, wrong = opened(browser, folder, 390)
    read = ("body", "#board .tabulator-cell", "#board small", ".model", "figcaption", "#reported td", ".tag")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for selector in read:
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (luminance(ground) < 0.1) == (scheme == "dark")
    assert wrong == []


def contrast(page: Page, selector: str) -> float:
    """WCAG contrast of an element's text with what lies behind it."""
    script = """selector => {
        let node = document.querySelector(selector);
        const ink = getComputedStyle(node).color;
        const ground = (e) => getComputedStyle(e).backgroundColor;
        while (node && ground(node) === "rgba(0, 0, 0, 0)") node = node.parentElement;
        return [ink, ground(node)];
    }"""
    high, low = sorted((luminance(c) for c in page.evaluate(script, selector)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    values = np.array([float(v) for v in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_two_thousand_models_are_as_many_elements_as_are_in_view(
    browser: Browser, board: Board, tmp_path: Path
) -> None:
    more = (replace(board.rows[0], label=f"model {i}") for i in range(len(board.rows), 2000))
    rows = (*board.rows, *more)
    write_page(replace(board, rows=rows), tmp_path, images=False)
    start = time.monotonic()
    page, wrong = opened(browser, tmp_path, 1280)
    assert 5 < page.locator(".tabulator-row").count() < 200 and time.monotonic() - start < 60
    page.locator(".tabulator-tableholder").evaluate("e => e.scrollTop = e.scrollHeight")
    page.get_by_role("button", name="model 1999", exact=True).wait_for()
    page.locator("#search").fill("model 1234")
    assert names(page) == ["model 1234"] and page.locator("#count").inner_text() == "1 of 2000 models"
    page.locator("#metric").select_option("krcc")
    assert names(page) == ["model 1234"]
    assert page.locator("#distortions-plot rect").count() == 3 * COMPARED
    assert wrong == []


def test_every_control_has_a_name(desk: tuple[Page, list[str]]) -> None:
    page, _ = desk
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("select, .controls input, button")]
            .filter((e) => !e.labels?.length && !e.getAttribute("aria-label"))
            .filter((e) => e.tagName !== "BUTTON" || !e.textContent.trim())
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    headings = page.locator("#board .tabulator-col.tabulator-sortable")
    assert headings.evaluate_all("all => all.every((e) => e.tabIndex === 0)")
