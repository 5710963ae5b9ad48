"""A suite is a yaml file: models × data sets, and what is measured. Names are checked before anything runs.

name: quick
models:
  - rali-tiny-synthetic
  - {ref: "ckpt:runs/mine/checkpoints/best.ckpt", name: mine, licence: Apache-2.0, batch_size: 32}
  - pyiqa:*offline            # every metric of pyiqa that needs no download
exclude: ["pyiqa:mad"]        # of the groups above
datasets:
  - synthetic:lab
  - {ref: koniq10k, publish: false}
split: test
limit: 200                    # rows a data set, drawn by name; every row when left out
seed: 0
cost: {against: rali-tiny-synthetic, images: 20}   # false measures none
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rali_zoo.errors import ConfigError, MissingExtraError, UnknownNameError, near_miss

SPLITS = ("test", "val", "train")
#: Whose metrics make groups.
LIBRARIES = ("pyiqa", "piq", "torchmetrics")
#: After a library's ``:``, all of its metrics, or those that need no weights.
GROUPS = ("*", "*offline")


@dataclass(frozen=True)
class Contender:
    """One model of a suite.

    Attributes:
        ref: what :func:`rali_zoo.zoo.load_model` takes.
        name: what tables and files call it; the reference unless given.
        licence: of its weights and code; what the scorer itself says unless given.
        batch_size: images a forward pass.
    """

    ref: str
    name: str = ""
    licence: str = ""
    batch_size: int = 16

    @property
    def source(self) -> str:
        """Who made it: the scheme of somebody else's metric or model, else ``rali_zoo``."""
        scheme = self.ref.partition(":")[0]
        return scheme if scheme in (*LIBRARIES, "csv", "levels") else "rali_zoo"


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of a suite.

    Attributes:
        ref: what :func:`rali_zoo.data.tables.load_table` takes.
        publish: whether results files hold its ids and scores an image, from which every statistic can be
            computed again; by default only where the labels are synthetic.
    """

    ref: str
    publish: bool | None = None


@dataclass(frozen=True)
class CostPlan:
    """How cost is measured.

    Attributes:
        against: reference of the model whose latency is measured in turn with each other one's, image by
            image, so that their ratio holds on a machine with other work; empty for none.
        images: of the latency, at most.
        warmup: images scored before anything is timed.
        batch_sizes: of the throughput.
        seconds: what latency, and each batch size of the throughput, may take; three images are always
            timed.
    """

    against: str = ""
    images: int = 20
    warmup: int = 2
    batch_sizes: tuple[int, ...] = (1, 16)
    seconds: float = 5.0


@dataclass(frozen=True)
class Suite:
    """A suite, checked.

    Attributes:
        name: of the suite.
        models: in the order of the file, groups expanded.
        datasets: in the order of the file.
        split: the rows that are scored.
        limit: rows a data set; ``None`` for every one.
        seed: of the bootstrap and of the draw of ``limit`` rows.
        resamples: of the bootstrap.
        cost: how cost is measured; ``None`` for not at all.
    """

    name: str
    models: tuple[Contender, ...]
    datasets: tuple[DatasetEntry, ...]
    split: str = "test"
    limit: int | None = None
    seed: int = 0
    resamples: int = 1000
    cost: CostPlan | None = CostPlan()


def read_suite(path: str | Path) -> Suite:
    """Read a suite and check every name in it.

    Raises:
        ConfigError: a file that is missing or no suite, an unknown key, a value that cannot be, a model
            twice.
        UnknownNameError: a name of a model, group, metric or data set that is not known.
        UriError: a reference that cannot be read.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no suite {str(path)!r}; see benchmarks/suites for examples")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no yaml: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no suite; it starts with models: and datasets:")
    return parse_suite(content, path.stem)


def parse_suite(content: Mapping[str, Any], name: str) -> Suite:
    """A suite from what its yaml file holds.

    Args:
        content: keys as in the attributes of :class:`Suite`, and ``exclude``, a list of models.
        name: of the suite where the content has none.

    Raises:
        As :func:`read_suite`.
    """
    content = dict(content)
    exclude = _strings(content.pop("exclude", []), "exclude")
    cost = content.pop("cost", {})
    _known_keys(content, [f.name for f in fields(Suite)], "the suite", extra=("exclude", "cost"))
    models = _contenders(content.pop("models", None), exclude)
    datasets = _datasets(content.pop("datasets", None))
    if cost is True or cost is None:
        cost = {}
    plan = None if cost is False else _build(CostPlan, cost, "cost")
    suite = _build(Suite, {"name": name, **content, "models": models, "datasets": datasets}, "the suite")
    suite = Suite(**{**suite.__dict__, "cost": plan})
    _check(suite)
    return suite


def _check(suite: Suite) -> None:
    if suite.split not in SPLITS:
        raise ConfigError(f"unknown split {suite.split!r}. {near_miss(suite.split, SPLITS)}")
    least: dict[str, int | None] = {"limit": suite.limit, "resamples": suite.resamples}
    if suite.cost is not None:
        cost = suite.cost
        least |= {"cost.images": cost.images, "cost.batch_sizes": min(cost.batch_sizes)}
        if cost.against:
            check_model(cost.against)
        if cost.seconds <= 0 or cost.warmup < 0:
            raise ConfigError("cost.seconds is above 0 and cost.warmup at least 0")
    for key, value in least.items():
        if value is not None and value < 1:
            raise ConfigError(f"{key}: {value} cannot be; give at least 1")
    if not 0 <= suite.seed < 2**32:
        raise ConfigError(f"seed: {suite.seed} cannot be; give 0 to 2**32 - 1")


# ---- models ----


def _contenders(items: object, exclude: Collection[str]) -> tuple[Contender, ...]:
    if not isinstance(items, list) or not items:
        raise ConfigError("the suite needs models: a list of references, such as rali-tiny-synthetic")
    found: dict[str, Contender] = {}
    refs: list[str] = []
    for item in items:
        contender = _build(Contender, item if isinstance(item, dict) else {"ref": item}, "a model")
        group = expand_group(contender.ref)
        if group is not None and contender.name:
            raise ConfigError(f"{contender.ref!r} is a group; it takes no name")
        for ref in [contender.ref] if group is None else group:
            refs.append(ref)
            if ref in exclude:
                continue
            one = Contender(ref, contender.name or ref, contender.licence, contender.batch_size)
            if one.batch_size < 1:
                raise ConfigError(f"model {ref!r}: batch_size is at least 1")
            if group is None:
                check_model(ref)
            if one.name in found and group is None:
                raise ConfigError(f"two models are called {one.name!r}; give one of them a name:")
            found.setdefault(one.name, one)
    for ref in exclude:
        if ref not in refs:
            raise ConfigError(f"exclude: no model of the suite is {ref!r}. {near_miss(ref, refs)}")
    if not found:
        raise ConfigError("every model of the suite is excluded")
    return tuple(found.values())


def _datasets(items: object) -> tuple[DatasetEntry, ...]:
    if not isinstance(items, list) or not items:
        raise ConfigError("the suite needs datasets: a list of references, such as synthetic:lab")
    found = [_build(DatasetEntry, i if isinstance(i, dict) else {"ref": i}, "a data set") for i in items]
    for entry in found:
        check_dataset(entry.ref)
    twice = {e.ref for e in found if sum(o.ref == e.ref for o in found) > 1}
    if twice:
        raise ConfigError(f"the suite names a data set twice: {', '.join(sorted(twice))}")
    return tuple(found)


def check_dataset(ref: str) -> None:
    """Whether a data set's name and scheme are known; no file is opened.

    Raises:
        UriError: they are not.
    """
    from rali_zoo.data.registry import DATASETS, GENERIC
    from rali_zoo.uri import parse_uri

    parse_uri(ref, GENERIC, "data set", bare=DATASETS)


def check_model(ref: str) -> None:
    """Whether a model's scheme and name are known; no weights are looked for.

    Raises:
        UriError: an unknown scheme, or a bare name that is none of ours.
        UnknownNameError: a metric that its library does not have.
    """
    from rali_zoo.baselines import BASELINES, list_metrics
    from rali_zoo.uri import parse_uri
    from rali_zoo.zoo import MODELS, RUNTIMES, SCHEMES

    uri = parse_uri(ref, [*SCHEMES, *RUNTIMES, *BASELINES], "model", MODELS)
    if uri.scheme not in LIBRARIES or uri.id in list_metrics(uri.scheme, offline=True):
        return
    try:
        known = list_metrics(uri.scheme)
    except MissingExtraError:
        return  # its cell will say so
    if uri.id not in known:
        raise UnknownNameError(f"metric of {uri.scheme}", uri.id, [*known, *GROUPS])


def expand_group(ref: str) -> list[str] | None:
    """The models of ``LIBRARY:*`` and ``LIBRARY:*offline``; ``None`` for a reference that is no group.

    Raises:
        ConfigError: a group that there is not.
        MissingExtraError: all of a library's metrics are asked for, and it is not installed.
    """
    from rali_zoo.baselines import list_metrics

    scheme, _, name = ref.partition(":")
    if not name.startswith("*"):
        return None
    if scheme not in LIBRARIES or name not in GROUPS:
        known = [f"{library}:{group}" for library in LIBRARIES for group in GROUPS]
        raise ConfigError(f"there is no group {ref!r}. {near_miss(ref, known)}")
    return [f"{scheme}:{metric}" for metric in list_metrics(scheme, offline=name == "*offline")]


# ---- values ----


def _build(kind: type, content: object, where: str) -> Any:
    """An instance of one of the classes above from a mapping; values must be of the fields' types."""
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: {content!r} is not what is expected here")
    types = {f.name: str(f.type) for f in fields(kind)}
    _known_keys(content, types, where)
    values = {}
    for key, value in content.items():
        values[key] = _value(value, types[key], f"{where}: {key}")
    if "ref" in types and not values.get("ref"):
        raise ConfigError(f"{where} needs a ref:, its reference")
    return kind(**values)


_WORDS = {"str": "a word", "int": "a whole number", "float": "a number", "bool": "true or false"}


def _value(value: Any, kind: str, where: str) -> Any:
    base = kind.partition(" |")[0]
    if value is None and "None" in kind:
        return None
    if base.startswith("tuple[int"):
        if isinstance(value, list) and value and all(type(v) is int for v in value):
            return tuple(value)
        raise ConfigError(f"{where}: {value!r} is no list of whole numbers")
    if base not in _WORDS:
        return value
    number = base == "float" and type(value) in (int, float)
    if not number and type(value).__name__ != base:
        raise ConfigError(f"{where}: {value!r} is no {_WORDS[base].removeprefix('a ')}")
    return value


def _known_keys(
    content: Mapping[str, Any], known: Iterable[str], where: str, extra: tuple[str, ...] = ()
) -> None:
    names = [*known, *extra]
    for key in content:
        if key not in names:
            raise ConfigError(f"{where} has no key {key!r}. {near_miss(str(key), names)}")


def _strings(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ConfigError(f"{where}: a list of references is expected")
    return value
