"""The worst and the best, near-duplicates together, star ratings in sidecars, and the contact sheet."""

from __future__ import annotations

import html.parser
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rali_zoo.cli.main import main
from rali_zoo.data.sources import Item
from rali_zoo.errors import ConfigError
from rali_zoo.scoring.selection import ScoredImage, Share, near_duplicates, rank, sections
from rali_zoo.scoring.sheet import write_sheet
from rali_zoo.scoring.sidecars import stars, write_ratings
from rali_zoo.types import Score

EVIL = "<img src=x onerror=alert(1)>\"'&${x}.jpg"


def rows(values, folder="a"):
    return [
        ScoredImage(
            Item(f"{folder}/{i}.jpg"),
            Score(v, error=None if v is not None else "why", path=f"{folder}/{i}.jpg"),
        )
        for i, v in enumerate(values)
    ]


def names(section):
    return [[row.item.path for row in group] for group in section.groups]


# ---- choosing ----


def test_worst_and_best_by_number_and_by_share():
    ranked = rank(rows([3.0, None, 1.0, 5.0, 2.0, 4.0]), by_folder=False)
    assert [r.quantile for r in ranked] == [0.5, None, 0.1, 0.9, 0.3, 0.7]
    worst, best = sections(ranked, Share.parse("2", "--worst"), Share.parse("10%", "--best"))
    assert names(worst) == [["a/2.jpg"], ["a/4.jpg"]] and names(best) == [["a/3.jpg"]]
    assert worst.images == 5 and worst.scores[1] == 3.0
    (everything,) = sections(ranked, order="worst")
    assert [r.value for r in everything.rows] == [1, 2, 3, 4, 5]
    for text in ("0", "-3", "0%", "101%", "1.5", "many"):
        with pytest.raises(ConfigError, match="such as 10%"):
            Share.parse(text, "--worst")


def test_each_folder_for_itself():
    found = [*rows([1.0, 1.5], "dark"), *rows([4.0, 4.5], "bright")]
    assert [r.quantile for r in rank(found, by_folder=True)] == [0.25, 0.75, 0.25, 0.75]
    by_folder = sections(rank(found, True), worst=Share(number=1), by_folder=True)
    assert [names(s) for s in by_folder] == [[["dark/0.jpg"]], [["bright/0.jpg"]]]
    assert by_folder[0].title.startswith("dark: the worst 1")
    whole = sections(rank(found, True), worst=Share(number=50), by_folder=True)
    assert [s.title for s in whole] == ["dark: all, the worst first", "bright: all, the worst first"]
    (overall,) = sections(rank(found, False), worst=Share(number=2))
    assert [r.item.path for r in overall.rows] == ["dark/0.jpg", "dark/1.jpg"]


def test_equal_scores_get_equal_places():
    assert {r.quantile for r in rank(rows([2.0, 2.0, 2.0]), False)} == {0.5}


def test_a_group_of_near_duplicates_counts_as_one():
    found = rank(rows([1.0, 5.0, 2.0, 3.0]), False)
    (worst,) = sections(found, worst=Share(number=1), groups=[7, 7, 8, 9])
    assert names(worst) == [["a/1.jpg", "a/0.jpg"]]  # the best of the group first
    (best,) = sections(found, best=Share(number=2), groups=[7, 7, 8, 9])
    assert names(best) == [["a/1.jpg", "a/0.jpg"], ["a/3.jpg"]]


def test_near_duplicates_of_photographs(shared, tmp_path):
    pytest.importorskip("imagehash")
    from PIL import Image, ImageEnhance

    found = []
    for k, path in enumerate(sorted((shared / "data" / "pristine").glob("*.png"))[:12]):
        with Image.open(path) as image:
            image = image.convert("RGB")
        shots = [image, image.crop((4, 3, 508, 507)), ImageEnhance.Brightness(image).enhance(1.15)]
        for j, shot in enumerate(shots):
            place = tmp_path / f"{k:02d}_{j}.jpg"
            shot.save(place, quality=85 - 20 * j)
            found.append(ScoredImage(Item(str(place)), Score(3.0)))
    numbers = np.array(
        near_duplicates([*found, ScoredImage(Item(str(tmp_path / "gone.jpg")), Score(None, error="gone"))])
    )
    scenes = np.repeat(np.arange(12), 3)
    same = numbers[:-1, None] == numbers[None, :-1]
    assert (same == (scenes[:, None] == scenes)).mean() > 0.99
    assert (numbers == numbers[-1]).sum() == 1


# ---- sidecars ----


def rated(folder: Path, count=5):
    found = [ScoredImage(Item(str(folder / f"{i}.jpg")), Score(1.0 + i)) for i in range(count)]
    for row in found:
        Path(row.item.path).write_bytes(b"an image")
    return rank(found, False)


def readers():
    """What reads a rating, by name."""
    from xml.etree import ElementTree

    def plain(path):
        tree = ElementTree.parse(path)
        return next(e.get("{http://ns.adobe.com/xap/1.0/}Rating") for e in tree.iter() if len(e.attrib) > 1)

    def exiftool(path):
        if shutil.which("exiftool") is None:
            pytest.skip("no exiftool on this machine: apt-get install libimage-exiftool-perl")
        words = ["exiftool", "-s3", "-XMP:Rating", str(path)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    return [plain, exiftool]


@pytest.mark.parametrize("reader", readers(), ids=["plain", "exiftool"])
@pytest.mark.parametrize("naming", ["darktable", "adobe"])
def test_ratings_are_read_back(tmp_path, naming, reader):
    found = rated(tmp_path, 10)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    outcomes = write_ratings(found, naming)
    assert {o.outcome for o in outcomes} == {"written"}
    assert [o.stars for o in outcomes] == [1, 2, 2, 3, 3, 3, 3, 4, 4, 5] == [stars(r.quantile) for r in found]
    for outcome in outcomes:
        path = Path(f"{outcome.path}.xmp" if naming == "darktable" else outcome.path.replace(".jpg", ".xmp"))
        assert reader(path) == str(outcome.stars)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.jpg")} == before
    assert {o.outcome for o in write_ratings(found, naming)} == {"kept"}
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".jpg", ".xmp")]
    turned = rank([r._replace(score=Score(-r.value)) for r in found], False)
    assert {o.outcome for o in write_ratings(turned, naming)} <= {"written", "kept"}  # ours are made anew


DARKTABLE = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <!-- <rdf:Description/> in a comment is none -->
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:darktable="http://darktable.sf.net/" darktable:history_end="1"{more}>
   <darktable:history><rdf:Seq><rdf:li darktable:num="0" darktable:params="gz02&amp;é"/></rdf:Seq></darktable:history>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""


def outcome_of(tmp_path, text: str | bytes):
    found = rated(tmp_path, 1)
    target = tmp_path / "0.jpg.xmp"
    target.write_bytes(text.encode() if isinstance(text, str) else text)
    (outcome,) = write_ratings(found, "darktable")
    return outcome, target


def test_a_rating_is_put_into_a_sidecar_that_has_none(tmp_path):
    there = DARKTABLE.format(more="").replace(" <!-- <rdf:Description/> in a comment is none -->\n", "")
    outcome, target = outcome_of(tmp_path, there)
    assert outcome.outcome == "merged"
    text = target.read_text()
    added = re.search(r' xmlns:rz-xmp="http://ns.adobe.com/xap/1.0/" rz-xmp:Rating="3"', text)
    assert added and text.replace(added[0], "") == there
    for reader in readers()[1:]:
        assert reader(target) == "3"
    assert (
        write_ratings(rank([ScoredImage(Item(str(tmp_path / "0.jpg")), Score(2.0))], False), "darktable")[
            0
        ].outcome
        == "kept"
    )


XMP = 'xmlns:xmp="http://ns.adobe.com/xap/1.0/"'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DARKTABLE.format(more=f' {XMP} xmp:Rating="1"'), r"has a rating already \(1\)"),
        (DARKTABLE.format(more=f' {XMP} xmp:Rating="-1"'), "has a rating already"),
        (
            DARKTABLE.format(more=f" {XMP}").replace(
                "<darktable:history>", "<xmp:Rating>5</xmp:Rating><darktable:history>"
            ),
            r"already \(5\)",
        ),
        (DARKTABLE.format(more=""), "more than the rating"),  # the first that looks like one is a comment
        ("no xml at all", "no XML"),
        ("", "no XML"),
        (DARKTABLE.format(more="")[:300], "no XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "document type"),
        ("<a><b/></a>", "no rdf:Description"),
        (DARKTABLE.format(more="").encode("utf-16"), "UTF-8"),
    ],
    ids=lambda x: str(x)[:1] and None,
)
def test_other_peoples_sidecars_are_kept(tmp_path, text, reason):
    outcome, target = outcome_of(tmp_path, text)
    assert outcome.outcome == "refused" and re.search(reason, outcome.reason)
    assert target.read_bytes() == (text.encode() if isinstance(text, str) else text)


def test_what_has_no_place_for_a_sidecar_is_a_row_with_a_reason(tmp_path):
    raw, jpg = tmp_path / "a.cr2", tmp_path / "a.jpg"
    link, target = tmp_path / "b.jpg", tmp_path / "elsewhere.xmp"
    target.write_text("mine")
    (tmp_path / "b.jpg.xmp").symlink_to(target)
    items = [
        Item(str(raw)),
        Item(str(jpg)),
        Item("s.tar/x.jpg", shard="s.tar"),
        Item(str(tmp_path / "gone" / "x.jpg")),
    ]
    found = rank(
        [
            *(ScoredImage(item, Score(2.0)) for item in items),
            ScoredImage(Item("bad.jpg"), Score(None, error="why")),
        ],
        False,
    )
    adobe = write_ratings(found, "adobe")
    assert [o.outcome for o in adobe] == ["written", "refused", "refused", "written", "refused"]
    assert (
        "has the same sidecar" in adobe[1].reason
        and "shard" in adobe[2].reason
        and adobe[4].reason == "no score"
    )
    (linked,) = write_ratings(rank([ScoredImage(Item(str(link)), Score(2.0))], False), "darktable")
    assert "link" in linked.reason and target.read_text() == "mine"


# ---- the sheet ----


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


def test_the_sheet_is_one_file_without_scripts_and_names_are_escaped(tmp_path, photo_folder):
    good = photo_folder(3)
    evil = good[0].parent / EVIL
    shutil.copy(good[0], evil)
    bad = Score(None, error=EVIL, path=EVIL)
    explanation = ((0.6, 2.0, (EVIL, "blurred")),)
    scores = [Score(1.0 + i, 0.5, path=str(p), explanation=explanation) for i, p in enumerate([*good, evil])]
    found = rank([ScoredImage(Item(s.path), s) for s in scores], False)
    path = tmp_path / "sheets" / "sheet.html"
    write_sheet(path, sections(found, order="best"), [bad], EVIL, EVIL)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert not [a for _, a, _ in page.attributes if a.startswith("on")]
    sources = [value for tag, a, value in page.attributes if tag == "img" and a == "src"]
    assert len(sources) == 4 and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    assert not re.findall(r"url\(|@import|https?://", text)
    assert page.text.count(EVIL) >= 5 and "near-duplicates" not in page.text
    order = re.findall(r"class='score'>([\d.]+)<", text)
    assert order == ["4.00", "3.00", "2.00", "1.00"]
    links = [value for tag, a, value in page.attributes if tag == "a" and a == "href"]
    from urllib.parse import unquote

    assert [os.path.realpath(path.parent / unquote(link)) for link in links] == [
        os.path.realpath(r.item.path) for r in reversed(found)
    ]
    with pytest.raises(ConfigError, match="2000 images at most"):
        write_sheet(path, sections(rank(rows([1.0] * 2001), False)), [], "m", "c")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sheet_in_a_browser(tmp_path, photo_folder, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    good = photo_folder(4)
    found = rank([ScoredImage(Item(str(p)), Score(1.5 + i, path=str(p))) for i, p in enumerate(good)], False)
    path = tmp_path / "sheet.html"
    write_sheet(path, sections(found, groups=[0, 0, 1, 2]), [], "a-model-" * 20, "caution")
    with sync_api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=scheme)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        page.evaluate("window.scrollTo(0, 1e6)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
        assert page.locator(".group figure").count() == 2
        browser.close()
    assert not said and all(url.startswith(("file:", "data:")) for url in asked)


# ---- the command ----


@pytest.mark.parametrize("output", [None, "scores.csv"])
def test_the_command(model, photo_folder, tmp_path, capsys, output):
    pytest.importorskip("imagehash")
    folder = photo_folder(5)[0].parent
    (folder / "bad.jpg").write_bytes(b"")
    sheet = tmp_path / "sheet.html"
    words = [
        "score",
        str(folder),
        f"--model={model}",
        "--worst=2",
        "--best",
        "20%",
        "--by-folder",
        "--duplicates",
    ]
    words += [f"--sheet={sheet}", "--xmp=darktable", *([f"--output={tmp_path / output}"] if output else [])]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "the worst 2" in out and "the best 20 %" in out and "5 written" in err and "no score" in err
    assert len(list(folder.glob("*.xmp"))) == 5 and "bad.jpg" in sheet.read_text()
    if output:
        assert len((tmp_path / output).read_text().splitlines()) == 7  # the table has all
    assert main(words) == 1 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--worst=some"], "such as 10%"), (["--sheet=a.txt"], ".html"), (["--best=0"], "such as 10%")],
)
def test_what_cannot_be_done_is_said_first(photo_folder, tmp_path, words, says, capsys):
    assert main(["score", str(photo_folder(1)[0]), "--model=ckpt:none.ckpt", *words]) == 1
    assert says in capsys.readouterr().err
