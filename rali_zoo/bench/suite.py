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
degradations:                 # chains of degraded images, of which the order is known and nothing else
  - degraded:library?protocol=whole
split: test
limit: 200                    # rows a data set, drawn by name; every row when left out
balance: true                 # … and by content in turn, so that no content makes up most of them
seed: 0
cost: {against: rali-tiny-synthetic, images: 20}   # false measures none

A suite may name files of this machine, since to compare one's own is what it is for; it names no command and
no address, so that a stranger's suite cannot run or fetch anything but models by their hub's name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rali_zoo.bench.results import Source
from rali_zoo.bench.schema import Count, Part, checked
from rali_zoo.errors import ConfigError, MissingExtraError, UnknownNameError, near_miss
from rali_zoo.settings import read_yaml

#: Whose metrics make groups.
LIBRARIES = ("pyiqa", "piq", "torchmetrics", "classic")
#: After a library's ``:``, all of its metrics, or those that need no weights.
GROUPS = ("*", "*offline")
_COMMAND = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)

AtLeastOne = Annotated[int, Field(ge=1)]


def _by_ref(value: object) -> object:
    return {"ref": value} if isinstance(value, str) else value


def _harmless(ref: str) -> str:
    if found := _COMMAND.search(ref):
        raise ValueError(f"{ref!r}: a suite names files and models, no commands or addresses ({found[0]}…)")
    if not ref:
        raise ValueError("an empty reference")
    return ref


Ref = Annotated[str, AfterValidator(_harmless)]


def source_of(ref: str) -> Source:
    """Who made a model: the scheme of somebody else's metric or model, else ``rali_zoo``."""
    known: dict[str, Source] = {name: name for name in get_args(Source) if name != "reported"}
    return known.get(ref.partition(":")[0], "rali_zoo")


class Entry(Part):
    """One model of a suite.

    Attributes:
        ref: what :func:`rali_zoo.zoo.load_model` takes.
        name: what tables and files call it; the reference unless given.
        licence: of its weights and code; what the scorer itself states unless given.
        batch_size: images a forward pass.
    """

    ref: Ref
    name: str = ""
    licence: str = ""
    batch_size: AtLeastOne = 16

    @property
    def source(self) -> Source:
        """Who made it."""
        return source_of(self.ref)


class DatasetEntry(Part):
    """One data set of a suite.

    Attributes:
        ref: what :func:`rali_zoo.data.tables.load_table` takes.
        publish: whether results files hold its ids and scores an image, from which every statistic can be
            computed again; by default only where the labels are synthetic.
    """

    ref: Ref
    publish: bool | None = None


class DegradationEntry(DatasetEntry):
    """Degraded images of a suite: what counts is whether their levels are put in order.

    Attributes:
        ref: of a data set with columns ``content``, ``distortion`` and ``level``, such as ``degraded:FOLDER``; every
            row is scored, whatever the suite's ``limit``.
        publish: as of a data set.
    """


class CostPlan(Part):
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
    images: AtLeastOne = 20
    warmup: Count = 2
    batch_sizes: Annotated[list[AtLeastOne], Field(min_length=1)] = [1, 16]
    seconds: Annotated[float, Field(gt=0)] = 5.0


def _cost(value: object) -> object:
    return {} if value is True else None if value is False else value


class Suite(Part):
    """A suite, checked.

    Attributes:
        name: of the suite.
        models: in the order of the file, groups expanded.
        datasets: in the order of the file.
        degradations: data sets that are measured by the order of their levels.
        exclude: models of the groups that are left out.
        split: the rows that are scored.
        limit: rows a data set; ``None`` for every one.
        balance: whether the contents of a data set are drawn in turn; see :func:`rali_zoo.bench.rows.draw`.
        seed: of the bootstrap and of the draw of ``limit`` rows.
        resamples: of the bootstrap.
        cost: how cost is measured; ``None`` for not at all.
    """

    name: str
    models: Annotated[list[Annotated[Entry, BeforeValidator(_by_ref)]], Field(min_length=1)]
    datasets: list[Annotated[DatasetEntry, BeforeValidator(_by_ref)]] = []
    degradations: list[Annotated[DegradationEntry, BeforeValidator(_by_ref)]] = []
    exclude: list[str] = []
    split: Literal["test", "val", "train"] = "test"
    limit: AtLeastOne | None = None
    balance: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    resamples: AtLeastOne = 1000
    cost: Annotated[CostPlan | None, BeforeValidator(_cost)] = CostPlan()

    @model_validator(mode="after")
    def _once(self) -> Self:
        if not self.entries:
            raise ValueError("the suite names no data set; give datasets: or degradations:")
        for entries in (self.datasets, self.degradations):
            refs = [entry.ref for entry in entries]
            if twice := sorted({ref for ref in refs if refs.count(ref) > 1}):
                raise ValueError(f"the suite names a data set twice: {', '.join(twice)}")
        return self

    @property
    def entries(self) -> list[DatasetEntry]:
        """All that a model meets: data sets with scores, then degradations."""
        return [*self.datasets, *self.degradations]


def read_suite(path: str | Path) -> Suite:
    """Read a suite and check every name in it.

    Raises:
        ConfigError: a file that is missing or no suite, an unknown key, a value that cannot be, a model
            twice.
        UnknownNameError: a name of a model, group, metric or data set that is not known.
        UriError: a reference that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no suite {str(path)!r}; see benchmarks/suites for examples")
    content = read_yaml(path)
    return parse_suite(content, path.stem, str(path))


def parse_suite(content: Mapping[str, object], name: str, file: str = "the suite") -> Suite:
    """A suite from what its yaml file holds.

    Args:
        content: keys as in the attributes of :class:`Suite`.
        name: of the suite where the content has none.
        file: begins the message of an error.

    Raises:
        As :func:`read_suite`.
    """
    suite = checked(Suite, {"name": name, **content}, file, ConfigError)
    for entry in suite.entries:
        check_dataset(entry.ref)
    if suite.cost is not None and suite.cost.against:
        check_model(suite.cost.against)
    return suite.model_copy(update={"models": _expanded(suite.models, suite.exclude)})


def _expanded(items: Sequence[Entry], exclude: Collection[str]) -> list[Entry]:
    """The models of a suite, each once, groups expanded."""
    found: dict[str, Entry] = {}
    refs: list[str] = []
    for item in items:
        group = expand_group(item.ref)
        if group is not None and item.name:
            raise ConfigError(f"{item.ref!r} is a group; it takes no name")
        for ref in [item.ref] if group is None else group:
            refs.append(ref)
            if ref in exclude:
                continue
            one = item.model_copy(update={"ref": ref, "name": item.name or ref})
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
    return list(found.values())


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
