"""The site: links lead somewhere, the menu has every page, cards and numbers are those of the package."""

from __future__ import annotations

import importlib.util
import json
import posixpath
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from markdown_blocks import PAGES, ROOT

from rali_zoo.cli.main import COMMANDS
from rali_zoo.data.registry import list_cards
from rali_zoo.paths import SHIPPED

DOCS = ROOT / "docs"
PACKAGE = ROOT / "rali_zoo"


def load_hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = load_hooks()


def menu(entries: list) -> list[str]:
    """Pages of the menu, in order."""
    pages: list[str] = []
    for entry in entries:
        value = entry if isinstance(entry, str) else next(iter(entry.values()))
        pages += [value] if isinstance(value, str) else menu(value)
    return pages


def config() -> dict:
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_page_is_in_the_menu_once():
    listed = menu(config()["nav"])
    assert sorted(listed) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "#", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file
        assert place.exists(), f"{target} of {path.name}"
        if anchor and place.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\s-]", "", h).strip().lower().replace(" ", "-") for h in heads], (
                target
            )


def test_all_parts_of_pages_can_be_made():
    marks = {m[0] for p in DOCS.rglob("*.md") for m in HOOKS._MARK.findall(p.read_text())}
    assert marks == {*HOOKS.PARTS, "api"}, "a part that no page shows, or a mark that nothing fills"
    for page in DOCS.rglob("*.md"):
        assert not HOOKS._MARK.search(HOOKS.fill(page.read_text()))


def test_cards_are_those_of_the_registry():
    text = HOOKS.fill((DOCS / "data_cards.md").read_text())
    for card in list_cards():
        low, high = card.mos_range
        assert f"## {card.title}\n" in text and card.licence in text and card.layout.rstrip() in text
        section = text.partition(f"## {card.title}\n")[2].partition("\n## ")[0]
        assert f"| {card.n_images:,} |" in section and f"| {low:g} to {high:g}, " in section
        assert ("synthetic labels" in section) == card.synthetic


def test_model_cards_hold_the_measured_numbers():
    text = HOOKS.fill((DOCS / "model_cards.md").read_text())
    assert set(HOOKS.RUNS) == set(SHIPPED) - {
        "photo",
        "photo-small",
    }  # whose numbers are on a page of their own
    for name, file in HOOKS.RUNS.items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for ref, row in json.loads((HOOKS.RESULTS / file).read_text())["datasets"].items():
            assert re.search(
                rf"`{ref}`.*\| {row['n']} \| {row['failed']} \| {row['srcc']:.3f} \|", section
            ), ref


def test_every_command_is_listed():
    text = HOOKS.fill((DOCS / "commands.md").read_text())
    assert all(f"`rali-zoo {name}`" in text for name in COMMANDS)


def test_reference_has_every_public_module():
    text = "\n".join(HOOKS.fill(p.read_text()) for p in (DOCS / "api").glob("*.md"))
    told = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in PACKAGE.rglob("*.py")
        if not p.stem.startswith("_") or p.stem == "__init__"
    }
    left_out = {m for m in modules if m.split(".")[1:2] != ["cli"]} - {"rali_zoo"}
    assert sorted(told) == sorted(left_out)


def test_links_to_the_repository_become_copies():
    found = HOOKS.repository_files("[a](../configs/x.yaml) [b](../CHANGELOG.md) [c](serve.md)", "index.md")
    assert found == {"../CHANGELOG.md": "CHANGELOG.md"}  # the first does not exist: MkDocs will say so
    assert HOOKS.repository_files("[a](../../CITATION.cff)", "api/index.md") == {
        "../../CITATION.cff": "CITATION.cff"
    }
    inside = HOOKS._whole("CONTRIBUTING.md")()
    assert "](add_a_data_set.md)" in inside and "](docs/" not in inside


@pytest.mark.slow
def test_site_builds_without_warnings_and_fetches_nothing(tmp_path):
    pytest.importorskip("material", reason="needs the extra docs")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not [u for u in fetched if "canonical" not in u], f"{posixpath.basename(page)}: {fetched}"
    assert (Path(tmp_path) / "site" / "search" / "search_index.json").is_file()
