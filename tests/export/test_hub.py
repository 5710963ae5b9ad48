"""Folders and repositories of the hub; the hub itself is a stub here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import yaml
from markdown_blocks import ROOT, blocks
from plug_in import install

import rali_zoo
from rali_zoo.errors import CheckpointError, ConfigError
from rali_zoo.models import NETWORKS
from rali_zoo.models.files import save_scorer

RESULTS = {"koniq10k": {"n": 2010, "srcc": 0.91234, "plcc": 0.9}, "synthetic:lab": {"srcc": 0.5, "rmse": 0.7}}


class Hub:
    """What push_to_hub asks of HfApi; keeps what it was given."""

    made: dict = {}
    files: dict = {}

    def __init__(self, token=None):
        type(self).made = {"token": token}

    def create_repo(self, repo_id, private, exist_ok):
        self.made.update(repo_id=repo_id, private=private, exist_ok=exist_ok)
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, repo_id, folder_path, commit_message, revision):
        from pathlib import Path

        type(self).files = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}
        self.made.update(message=commit_message, revision=revision)
        return f"hub/{repo_id}/commit/1"


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def test_a_folder_loads_as_what_was_saved(clip, tmp_path, photo):
    folder = rali_zoo.save_pretrained(clip, tmp_path / "scorer", "cc-by-4.0")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "model.safetensors"]
    loaded = rali_zoo.from_pretrained(folder)
    assert loaded.revision == clip.revision and loaded.training_sets == clip.training_sets
    first, second = loaded.score(photo())[0], clip.score(photo())[0]
    assert first.score == second.score and first.explanation == second.explanation
    with pytest.raises(ConfigError, match="no revision 'main'"):
        rali_zoo.from_pretrained(folder, revision="main")


def test_the_card_holds_what_was_given_and_nothing_else(clip, tiny, tmp_path):
    folder = rali_zoo.save_pretrained(clip, tmp_path / "one", "cc-by-4.0", RESULTS, "My **notes**.", "me/one")
    card = (folder / "README.md").read_text(encoding="utf-8")
    data = yaml.safe_load(card.split("---")[1])
    assert data["license"] == "cc-by-4.0" and data["library_name"] == "rali_zoo"
    numbers = {
        (r["dataset"]["type"], m["type"]): m["value"]
        for r in data["model-index"][0]["results"]
        for m in r["metrics"]
    }
    assert numbers == {
        ("koniq10k", "srcc"): 0.91234,
        ("koniq10k", "plcc"): 0.9,
        ("synthetic:lab", "srcc"): 0.5,
        ("synthetic:lab", "rmse"): 0.7,
    }
    assert "| `koniq10k` | 2010 | 0.912 | 0.900 | – |" in card
    assert "`synthetic:lab (synthetic labels)`" in card and "My **notes**." in card
    assert "6 prototypes" in card and "`koniq10k`" in card and clip.revision in card
    assert 'load_model("hf-hub:me/one")' in card and "in-domain" in card
    assert str(tmp_path) not in card and "/pytest" not in card  # the backbone came from a folder
    assert "synthetic labels**, made by a rule" not in card

    bare = rali_zoo.save_pretrained(tiny, tmp_path / "two", "apache-2.0").joinpath("README.md").read_text()
    assert "None were given." in bare and "model-index" not in bare
    assert "**Trained on synthetic labels**" in bare and 'load_model("local-dir:two")' in bare


def test_push_writes_the_same_files_to_the_hub(tiny, hub, tmp_path):
    address = rali_zoo.push_to_hub(
        tiny, "me/tiny", "apache-2.0", RESULTS, private=True, token="t", revision="b"
    )
    assert address == "hub/me/tiny/commit/1"
    assert hub.made == {
        "token": "t",
        "repo_id": "me/tiny",
        "private": True,
        "exist_ok": True,
        "message": "Upload a rali_zoo scorer",
        "revision": "b",
    }
    assert sorted(hub.files) == ["README.md", "model.safetensors"]
    (tmp_path / "model.safetensors").write_bytes(hub.files["model.safetensors"])
    assert rali_zoo.from_pretrained(tmp_path).revision == tiny.revision


def test_an_outside_model_goes_to_the_hub_and_comes_back(hub, tmp_path, monkeypatch, photo):
    """The model of docs/add_a_model.md, known by its entry point alone; its page tests the rest of the round."""
    for block in blocks(ROOT / "docs" / "add_a_model.md"):
        if block.title in ("mine.py", "pyproject.toml"):
            (tmp_path / block.title).write_text(block.text)
    install(tmp_path, monkeypatch)
    path = save_scorer(NETWORKS["Mine"](), tmp_path / "mine.safetensors")
    scorer = rali_zoo.load_model(f"local-dir:{path}")
    rali_zoo.push_to_hub(scorer, "me/mine", "cc-by-4.0", {"koniq10k": {"n": 3, "srcc": 0.5}})
    for name, content in hub.files.items():
        (tmp_path / name).write_bytes(content)
    card = (tmp_path / "README.md").read_text()
    assert "head of `MineNetwork`" in card and "regression head" not in card
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda repo_id, filename, revision=None: str(tmp_path / filename)
    )
    again = rali_zoo.load_model("hf-hub:me/mine")
    assert type(again.network).__name__ == "MineNetwork" and again.revision == scorer.revision
    assert again.score(photo())[0].score == scorer.score(photo())[0].score
    sys.modules.pop("mine", None)


def test_what_is_on_the_hub_loads(tiny, monkeypatch, tmp_path):
    import huggingface_hub

    folder = rali_zoo.save_pretrained(tiny, tmp_path, "apache-2.0")
    asked = []

    def download(repo_id, filename, revision=None):
        asked.append((repo_id, filename, revision))
        return str(folder / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert rali_zoo.from_pretrained("me/tiny", revision="v1").revision == tiny.revision
    assert asked == [("me/tiny", "model.safetensors", "v1")]


@pytest.mark.parametrize(
    ("results", "licence", "says"),
    [
        ({"a": {"srrc": 0.9}}, "mit", "Did you mean 'srcc'"),
        ({"a": {"srcc": float("nan")}}, "mit", "not a finite number"),
        ({"a": {"srcc": "0.9"}}, "mit", "not a finite number"),
        ({}, " ", "give the licence"),
    ],
)
def test_numbers_that_are_none_are_refused(tiny, tmp_path, results, licence, says):
    with pytest.raises(ConfigError, match=says):
        rali_zoo.save_pretrained(tiny, tmp_path / "x", licence, results)
    assert not (tmp_path / "x").exists()


def test_a_hub_that_refuses_is_an_error_of_ours(tiny, hub, monkeypatch, tmp_path):
    from rali_zoo.export.hub import HubError

    def refuse(self, repo_id, private, exist_ok):
        raise ConnectionError("no network")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(HubError, match=r"save_pretrained writes the same files"):
        rali_zoo.push_to_hub(tiny, "me/tiny", "mit")
    with pytest.raises(CheckpointError, match="no scorer"):
        rali_zoo.from_pretrained(tmp_path)


def test_names_that_the_hub_does_not_know_are_said(tiny, monkeypatch):
    """The stub is off: the hub's own check of names needs no network."""
    with pytest.raises(ConfigError, match="ORG/REPO"):
        rali_zoo.push_to_hub(tiny, "me/two words", "mit")
