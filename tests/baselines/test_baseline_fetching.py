"""Weights that cannot be had, or that nobody should read."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from huggingface_hub import constants, hf_hub_download

from rali_zoo.backbones import weights
from rali_zoo.baselines import fetching as module
from rali_zoo.baselines.fetching import fetching
from rali_zoo.errors import CheckpointError, ConfigError, MissingExtraError, UriError, WeightsUnavailableError


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def unknown(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the tests' own setting


def test_a_file_of_torch_hub_is_named(tmp_path):
    with pytest.raises(WeightsUnavailableError) as caught, fetching("pyiqa:x", "pyiqa"):
        torch.hub.load_state_dict_from_url("https://example.org/net.pth", model_dir=str(tmp_path))
    assert "'pyiqa:x' needs https://example.org/net.pth" in str(caught.value)
    assert "TORCH_HOME" in str(caught.value) and isinstance(caught.value.__cause__, URLError)


def test_a_file_of_the_hub_is_named_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr("time.sleep", asked.append)  # a retry would wait
    with pytest.raises(WeightsUnavailableError, match="org/repo.*model.safetensors"), fetching("x", "pyiqa"):
        assert constants.HF_HUB_OFFLINE
        hf_hub_download("org/repo", "model.safetensors")
    assert not asked and not constants.HF_HUB_OFFLINE


def test_the_hub_is_asked_where_it_answers(monkeypatch):
    monkeypatch.setattr(weights, "_hub_answers", lambda: True)
    with fetching("x", "pyiqa"):
        assert not constants.HF_HUB_OFFLINE


def test_a_library_that_hides_the_cause_is_still_found_out():
    def load(url):
        try:
            urllib.request.urlopen(url)
        except URLError as error:
            raise RuntimeError("cannot load the model") from error

    said = "https://example.org/a.mat.*cannot load the model"
    with pytest.raises(WeightsUnavailableError, match=said), fetching("x", "pyiqa"):
        load("https://example.org/a.mat")


class Evil:
    def __reduce__(self):
        return (os.putenv, ("RALI_ZOO_EVIL", "1"))


def test_a_pickle_is_read_only_when_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.delenv(module._SAFE, raising=False)
    path = tmp_path / "net.pth"
    torch.save({"net": Path("x"), "evil": Evil()}, path)
    with pytest.raises(CheckpointError, match=r"runs code.*x\?trust_pickle=true"), fetching("x", "pyiqa"):
        torch.load(path, weights_only=False)
    assert module._SAFE not in os.environ
    with fetching("x", "pyiqa", trust_pickle=True):
        assert torch.load(path, weights_only=False)["net"] == Path("x")


def test_other_troubles_say_what_they_are(capsys):
    with (
        pytest.raises(MissingExtraError, match=r"'no_such_thing'.*rali-zoo\[pyiqa\]"),
        fetching("x", "pyiqa"),
    ):
        import no_such_thing  # noqa: F401
    said = "'x' cannot be loaded on this machine: RuntimeError: only on CUDA"
    with pytest.raises(ConfigError, match=said), fetching("x", "pyiqa"):
        raise RuntimeError("only on CUDA")
    with pytest.raises(UriError), fetching("x", "pyiqa"):
        raise UriError("ours passes")
    with fetching("x", "pyiqa"):
        print("Loading pretrained model")
    told = capsys.readouterr()
    assert told.out == "" and "Loading" in told.err


def test_what_was_changed_is_put_back(monkeypatch):
    monkeypatch.setenv(module._SAFE, "0")
    before = socket.getdefaulttimeout()
    with pytest.raises(ConfigError), fetching("x", "pyiqa"):
        assert os.environ[module._SAFE] == "1" and socket.getdefaulttimeout() == module._SILENCE_SECONDS
        raise KeyError("net")
    assert os.environ[module._SAFE] == "0" and socket.getdefaulttimeout() == before
