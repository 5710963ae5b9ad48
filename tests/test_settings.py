"""The reader of settings: what a dataclass accepts, and what is said of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Lt

from rali_zoo.errors import ConfigError, ScoreTableError, UriError
from rali_zoo.settings import read_settings, read_yaml


@dataclass(frozen=True)
class Part:
    share: Annotated[float, Ge(0), Lt(1)] = 0.5
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.share == 0.25:
            raise ConfigError("a quarter is no share")


@dataclass(frozen=True)
class Whole:
    name: str
    count: Annotated[int, Ge(1)] = 1
    way: Literal["long", "short"] | None = None
    fast: bool = False
    pair: tuple[int, int] = (0, 0)
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = field(default_factory=dict)


def test_a_mapping_becomes_a_dataclass_with_those_inside_it() -> None:
    given = {"name": "a", "pair": [1, 2], "parts": [{"share": 0, "file": "x/y"}], "named": {"b": {}}}
    whole = read_settings(Whole, given, "f")
    assert whole == Whole("a", pair=(1, 2), parts=(Part(0.0, Path("x/y")),), named={"b": Part()})
    assert type(whole) is Whole and type(whole.parts[0]) is Part


def test_words_of_a_reference_become_numbers() -> None:
    given = {"name": "7", "count": "3", "fast": "true", "way": "long"}
    assert read_settings(Whole, given, "f", text=True) == Whole("7", 3, "long", True)
    with pytest.raises(UriError, match=r"^'a:b': count: must be a whole number, got 'x'$"):
        read_settings(Whole, {"name": "a", "count": "x"}, "'a:b'", text=True, error=UriError)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1], "f: expected keys and values, got [1]"),
        ({}, "f: 'name' is missing"),
        ({"nam": "a", "name": "b"}, "f: unknown key 'nam'. Did you mean 'name'?"),
        ({"name": 1}, "f: name: must be a word, got 1"),
        ({"name": "a", "count": 0}, "f: count: must be greater than or equal to 1, got 0"),
        ({"name": "a", "count": True}, "f: count: must be a whole number, got True"),
        ({"name": "a", "count": "3"}, "f: count: must be a whole number, got '3'"),
        ({"name": "a", "fast": 1}, "f: fast: must be true or false, got 1"),
        ({"name": "a", "way": "lnog"}, "f: way: 'lnog' is not possible here. Did you mean 'long'?"),
        ({"name": "a", "parts": [{}, {"shar": 1}]}, "f: parts[1]: unknown key 'shar'. Did you mean 'share'?"),
        (
            {"name": "a", "parts": [{"share": math.nan}]},
            "f: parts[0].share: must be a finite number, got nan",
        ),
        ({"name": "a", "named": {"b": {"share": 1.0}}}, "f: named.b.share: must be less than 1, got 1.0"),
        ({"name": "a", "named": {"b": {"share": 0.25}}}, "f: named.b: a quarter is no share"),
        ({"name": "a", "pair": [1]}, "f: pair: 'pair[1]' is missing"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(given: object, said: str) -> None:
    with pytest.raises(ScoreTableError) as error:
        read_settings(Whole, given, "f", error=ScoreTableError)
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["[1]", "a: [", "a" * 3, "[" * 5000, "a: 1\na: 2", "b: {a: 1, a: 2}", "[1, 2]: 3"]
)
def test_yaml_that_is_no_mapping_or_says_a_thing_twice(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_that_is_absent_empty_or_binary(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    assert read_yaml(tmp_path / "a.yaml") == {}
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("a.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=name):
            read_yaml(tmp_path / name)


def test_a_merge_in_yaml_gives_way_to_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: &b {x: 1, y: 2}\nmine: {<<: *b, x: 3}\n")
    assert read_yaml(tmp_path / "a.yaml")["mine"] == {"x": 3, "y": 2}
