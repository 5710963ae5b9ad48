"""References become tables: the registry's names and the schemes csv, deqa and pyiqa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reader_fixtures import deqa_lists, image, make

from rali_zoo.data import DatasetCard, load_table
from rali_zoo.data.tables import DataTable
from rali_zoo.errors import (
    ConfigError,
    DatasetNotFoundError,
    RaliZooError,
    ScoreTableError,
    UnknownNameError,
    UriError,
)

BIQ = Path(__file__).resolve().parents[3] / "shared" / "data" / "biq2021"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(10):
        image(tmp_path / "photos" / f"{i}.png")
    return tmp_path


def scores(folder: Path, suffix: str = ".csv", **columns: object) -> Path:
    table = pd.DataFrame(
        {"image": [f"photos/{i}.png" for i in range(10)], "mos": np.linspace(0, 90, 10), **columns}
    )
    path = folder / f"scores{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


# ---- names of the registry ------------------------------------------------------------------------------


def test_a_name_becomes_a_table_on_the_mos_scale(tmp_path: Path) -> None:
    make("koniq10k", tmp_path)
    table = load_table("koniq10k?val_fraction=0", tmp_path)
    assert isinstance(table, DataTable) and isinstance(table.card, DatasetCard)
    assert table.split("train")["id"].tolist() == ["10004473376.jpg", "1001003012.jpg"]
    assert len(table.split("val")) == len(table.split("test")) == 1
    assert "train 2, val 1, test 1" in table.describe() and "4 of 10073 images" in table.describe()
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        table.split("training")


def test_a_dmos_is_flipped_and_the_native_score_kept(tmp_path: Path) -> None:
    make("csiq", tmp_path)
    frame = load_table("csiq", tmp_path).frame.set_index("id")
    worst, best = frame.loc["1600.jpeg2000.5.png"], frame.loc["1600.AWGN.1.png"]
    assert (worst["mos"], worst["mos_native"]) == (1.0, 1.0)
    assert best["mos"] == pytest.approx(5 - 4 * 0.062) and best["mos_native"] == 0.062
    assert best["std"] == pytest.approx(4 * 0.061)


def test_contents_stay_together_through_the_front_door(tmp_path: Path) -> None:
    make("kadid10k", tmp_path)
    for fold in range(3):
        table = load_table(f"kadid10k?protocol=kfold&folds=3&fold={fold}&val_fraction=0", tmp_path)
        assert not set(table.split("train")["content"]) & set(table.split("test")["content"])


def test_rows_outside_deqas_lists_are_counted(tmp_path: Path) -> None:
    make("koniq10k", tmp_path)
    table = load_table("koniq10k?protocol=deqa&val_fraction=0", tmp_path)
    assert len(table.split("train")) == 2 and len(table.split("test")) == 1
    assert table.unused == 1 and "1 left out by it" in table.describe()
    assert table.frame.index.tolist() == [0, 1, 2]


def test_where_the_folder_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = make("spaq", tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetNotFoundError) as caught:
        load_table("spaq", tmp_path / "data")
    assert str(tmp_path / "data" / "spaq") in str(caught.value)
    assert len(load_table(f"spaq?root={moved}", tmp_path / "data").frame) == 3
    moved.rename(tmp_path / "store" / "spaq")
    monkeypatch.setenv("RALI_ZOO_DATA", str(tmp_path / "store"))
    assert len(load_table("spaq", tmp_path / "data").frame) == 3


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("koniq", "Did you mean 'koniq10k'"),
        ("koniq10k?protocl=deqa", "Did you mean 'protocol'"),
        ("kadid10k?folds=3", "it belongs to kfold"),
        ("koniq10k?mos_range=0,1", "has no option 'mos_range'"),
        ("jsn:a.json", "unknown data set scheme 'jsn'"),
        ("csv:", "nothing stands after 'csv:'"),
    ],
)
def test_a_reference_that_cannot_be_read(ref: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UriError, match=words):
        load_table(ref, tmp_path)


def test_an_unknown_protocol_gives_the_near_miss(tmp_path: Path) -> None:
    make("koniq10k", tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'official'"):
        load_table("koniq10k?protocol=offical", tmp_path)


@pytest.mark.skipif(not BIQ.is_dir(), reason="needs the part of BIQ2021 in ../shared")
def test_real_photographs_with_human_scores() -> None:
    table = load_table(f"biq2021?root={BIQ}&val_fraction=0")
    assert len(table.split("train")) == 4200 and len(table.split("test")) == 500
    assert table.frame["mos"].between(1, 5).all()


def test_deqas_protocol_gives_its_labels_and_its_whole_list(tmp_path: Path) -> None:
    """Labels run from 1 to 5 between the extremes of the whole set, those outside the lists included."""
    make("koniq10k", tmp_path)
    own, deqa = (load_table(f"koniq10k?protocol={p}", tmp_path) for p in ("whole", "deqa"))
    low, high = own.frame["mos_native"].min(), own.frame["mos_native"].max()
    assert len(own.frame) > len(deqa.frame)
    native = deqa.frame["mos_native"]
    assert deqa.frame["mos"].tolist() == pytest.approx((1 + 4 * (native - low) / (high - low)).tolist())
    stds = own.frame.set_index("id")["std"][deqa.frame["id"]]  # KonIQ's scale is [1, 5] already
    assert deqa.frame["std"].tolist() == pytest.approx((stds * 4 / (high - low)).tolist())
    assert deqa.split("val").empty and len(deqa.split("train")) == 2
    assert len(load_table("koniq10k?protocol=deqa&val_fraction=0.5", tmp_path).split("val")) == 1


# ---- csv ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_any_table_of_images_and_scores(photos: Path, suffix: str) -> None:
    split = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2
    path = scores(photos, suffix, std=5.0, split=split, camera="phone")
    table = load_table(f"csv:{path}?mos_range=0,100")
    assert table.protocol == "official" and table.split("val")["id"].tolist() == [
        "photos/6.png",
        "photos/7.png",
    ]
    assert table.frame["mos"].tolist() == pytest.approx((1 + np.linspace(0, 90, 10) / 25).tolist())
    assert table.frame["std"].tolist() == pytest.approx([0.2] * 10)
    assert set(table.frame["camera"]) == {"phone"}


def test_a_table_without_splits_is_tested_on_unless_told_otherwise(photos: Path) -> None:
    path = scores(photos, content=["a"] * 5 + ["b"] * 5)
    assert len(load_table(f"csv:{path}?mos_range=0,100").split("test")) == 10
    table = load_table(f"csv:{path}?mos_range=0,100&protocol=random&ratio=0.5&val_fraction=0&seed=1")
    assert len(table.split("train")) == len(table.split("test")) == 5
    flipped = load_table(f"csv:{path}?mos_range=0,100&higher_is_better=false")
    assert flipped.frame["mos"].iloc[0] == 5.0


def test_images_without_scores_are_a_list_to_predict(photos: Path) -> None:
    (photos / "list.csv").write_text("image\n0.png\n1.png\n")
    table = load_table(f"csv:{photos / 'list.csv'}?root={photos / 'photos'}")
    assert table.frame["mos"].isna().all() and len(table.split("test")) == 2
    with pytest.raises(UnknownNameError, match="protocol"):
        load_table(f"csv:{photos / 'list.csv'}?root={photos / 'photos'}&protocol=random")


@pytest.mark.parametrize(
    ("text", "query", "error", "words"),
    [
        ("image,mos\nphotos/0.png,3\n", "", UriError, r"scale is never guessed.*mos_range=1,5"),
        ("image,mos\nphotos/0.png,3\n", "?mos_range=5", UriError, "is not two numbers"),
        ("image,mos\nphotos/0.png,3\n", "?mos_range=5,1", UriError, "first number must be the smaller"),
        ("image,mos\nphotos/0.png,3\n", "?mos_range=1,5&higher_is_better=yes", UriError, "=true or"),
        (
            "file,mos\nphotos/0.png,3\n",
            "?mos_range=1,5",
            ScoreTableError,
            "has no column image; it has file, mos",
        ),
        (
            "image,mos\nphotos/0.png,3\nphotos/1.png,\n",
            "?mos_range=1,5",
            ScoreTableError,
            "no number in row 1",
        ),
        ("image,mos\nphotos/0.png,9\n", "?mos_range=1,5", ScoreTableError, r"outside .* photos/0.png \(9\)"),
        ("image,mos\nphotos/x.png,3\n", "?mos_range=1,5", ScoreTableError, "not on disk: photos/x.png"),
        ("image,mos,split\nphotos/0.png,3,dev\n", "?mos_range=1,5", ScoreTableError, "unknown split dev"),
        ("image,mos\n", "?mos_range=1,5", ScoreTableError, "has no rows"),
        ("", "?mos_range=1,5", ScoreTableError, "no readable table"),
        ('image,mos\n"photos/0.png,3\n', "?mos_range=1,5", ScoreTableError, "no readable table"),
    ],
)
def test_a_table_that_cannot_be_trusted(photos: Path, text: str, query: str, error: type, words: str) -> None:
    path = photos / "scores.csv"
    path.write_text(text)
    with pytest.raises(error, match=words):
        load_table(f"csv:{path}{query}")


def test_a_table_that_is_not_there_or_of_no_known_kind(photos: Path) -> None:
    with pytest.raises(ScoreTableError, match="gone.csv does not exist"):
        load_table(f"csv:{photos / 'gone.csv'}?mos_range=1,5")
    with pytest.raises(ScoreTableError, match="unknown kind of table '.png'"):
        load_table(f"csv:{photos / 'photos' / '0.png'}?mos_range=1,5")
    (photos / "broken.parquet").write_bytes(b"PAR1nothing")
    with pytest.raises(ScoreTableError, match="no readable table"):
        load_table(f"csv:{photos / 'broken.parquet'}?mos_range=1,5")


def as_text(rows: list[list[object]], separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(map(str, row)) + end for row in rows)


ROWS: list[list[object]] = [[f"photos/{i}.png", 10 * i] for i in range(10)]
HEAD: list[list[object]] = [["image", "mos"]]


@pytest.mark.parametrize("name", [
    "utf-8-sig", "utf-16", "utf-32", "crlf", "mac", "trailing", "trailing_with_header", "blanks", "backslashes",
    "excel", "semicolon", "tab", "names",
])  # fmt: skip
def test_tables_as_people_have_them(photos: Path, name: str) -> None:
    plain, options = as_text(HEAD + ROWS), ""
    text = {
        "crlf": as_text(HEAD + ROWS, end="\r\n"),
        "mac": as_text(HEAD + ROWS, end="\r"),
        "trailing": as_text(HEAD) + as_text([[*row, ""] for row in ROWS]),
        "trailing_with_header": as_text([[*row, ""] for row in HEAD + ROWS]),
        "blanks": plain.replace("\n", "\n\n") + ",\n",
        "backslashes": plain.replace("/", "\\"),
        "excel": "sep=;\n" + as_text(HEAD + ROWS, ";"),
        "semicolon": as_text(HEAD + ROWS, ";"),
        "tab": as_text(HEAD + ROWS, "\t"),
        "names": as_text([["score", "filename"]] + [row[::-1] for row in ROWS], ";"),
    }.get(name, plain)
    options = {"semicolon": "&sep=;", "tab": "&sep=tab", "names": "&sep=;&image=filename&mos=score"}.get(
        name, ""
    )
    path = photos / "own.csv"
    path.write_bytes(text.encode(name if name.startswith("utf") else "utf-8"))
    frame = load_table(f"csv:{path}?mos_range=0,100{options}").frame
    assert frame["mos_native"].tolist() == [10.0 * i for i in range(10)]
    assert all(Path(p).exists() for p in frame["path"])


@pytest.mark.parametrize(("text", "query", "words"), [
    (as_text(HEAD + ROWS, ";"), "", r"parted by ';': add \?sep=;"),
    (as_text([["file", "score"], *ROWS]), "", r"it has file, score; say which one it is, e.g. \?image=file"),
    (as_text(HEAD + ROWS), "&mos=score", "has no column score"),
    (as_text(HEAD) + as_text([[*row, 3] for row in ROWS]), "", "3 values for 2 columns .*'3' has no name"),
    (as_text([*HEAD, *ROWS, ["./photos/0.png", 5]]), "", "twice, in two spellings of its path: photos/0.png, ./photos"),
    (as_text([*HEAD, *ROWS, ["photos/caf\xe9.png", 5]]), "", "not utf-8 at byte .* save it as UTF-8"),
])  # fmt: skip
def test_tables_that_would_be_read_wrongly(photos: Path, text: str, query: str, words: str) -> None:
    path = photos / "own.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScoreTableError, match=words):
        load_table(f"csv:{path}?mos_range=0,100{query}")
    with pytest.raises(UriError, match="is one character"):
        load_table(f"csv:{path}?mos_range=0,100&sep=;;")


def test_scores_that_fill_a_corner_of_their_scale_are_named(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = photos / "own.csv"
    path.write_text(as_text(HEAD + [[image, mos / 100] for image, mos in ROWS]))
    load_table(f"csv:{path}?mos_range=0,100")
    assert "all scores lie between 0 and 0.9" in caplog.text and len(caplog.records) == 1


def test_a_few_missing_images_are_named_and_many_are_an_error(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = photos / "own.csv"
    path.write_text(as_text([*HEAD, *ROWS, ["photos/99.png", 5]]))
    assert len(load_table(f"csv:{path}?mos_range=0,100").frame) == 11
    assert "1 of 11 images that are not on disk: photos/99.png" in caplog.text
    path.write_text(as_text([*HEAD, *ROWS, ["photos/99.png", 5], ["photos/98.png", 5]]))
    with pytest.raises(ScoreTableError, match="2 of 12 images"):
        load_table(f"csv:{path}?mos_range=0,100")


def test_a_bare_path_of_a_table_is_told_its_scheme(photos: Path) -> None:
    with pytest.raises(UriError, match=r"write 'csv:mine/scores.csv\?mos_range=LOW,HIGH'"):
        load_table("mine/scores.csv")


def test_a_sample_of_a_split_depends_on_the_seed_alone(photos: Path) -> None:
    table = load_table(f"csv:{scores(photos)}?mos_range=0,100")
    drawn = table.sample("test", 4, seed=1)
    assert drawn.index.is_monotonic_increasing and len(drawn) == 4
    assert drawn.equals(table.sample("test", 4, seed=1)) and not drawn.equals(table.sample("test", 4, seed=2))
    assert len(table.sample("test", None)) == len(table.sample("predict", 99)) == 10
    with pytest.raises(ConfigError, match="has no train rows"):
        table.sample("train", 4)


# ---- deqa -----------------------------------------------------------------------------------------------


def test_deqa_metas_keep_their_own_norm_and_split(tmp_path: Path) -> None:
    names = [f"KONIQ/images/{i}.jpg" for i in range(5)]
    for name in names:
        image(tmp_path / name)
    metas = tmp_path / "KONIQ" / "metas"
    deqa_lists(metas, names[:3], names[3:], "koniq")
    both = load_table(f"deqa:{metas}?val_fraction=0")
    assert both.protocol == "official" and len(both.split("train")) == 3 and len(both.split("test")) == 2
    assert both.frame["mos"].tolist() == [4.25, 3.25, 2.25, 4.25, 3.25]  # gt_score_norm as it stands
    assert both.frame["std"].tolist() == [0.6] * 5 and both.frame["gt_score"].iloc[0] == 3.5
    assert both.frame["level_probs"].iloc[0] == [0.3, 0.5, 0.15, 0.05, 0.0]
    one = load_table(f"deqa:{metas / 'test_koniq.json'}")
    assert one.split("test")["id"].tolist() == ["3.jpg", "4.jpg"] and one.split("train").empty
    moved = (tmp_path / "KONIQ" / "images").rename(tmp_path / "images")
    with pytest.raises(ScoreTableError, match="not on disk: 0.jpg"):
        load_table(f"deqa:{metas}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "KONIQ").mkdir()
    moved.rename(tmp_path / "other" / "KONIQ" / "images")
    assert len(load_table(f"deqa:{metas}?root={tmp_path / 'other'}&protocol=whole").split("test")) == 5


def test_deqa_metas_that_cannot_be_read(tmp_path: Path) -> None:
    for text, words in (
        ("{", "no readable JSON"),
        ("[]", "list of objects"),
        ('[{"image": "a"}]', "gt_score_norm"),
    ):
        (tmp_path / "test_x.json").write_text(text)
        with pytest.raises(ScoreTableError, match=words):
            load_table(f"deqa:{tmp_path / 'test_x.json'}")
    with pytest.raises(ScoreTableError, match="Data-DeQA-Score"):
        load_table(f"deqa:{tmp_path / 'gone.json'}")


# ---- pyiqa ----------------------------------------------------------------------------------------------


def test_pyiqa_meta_info_of_photographs(photos: Path) -> None:
    rows = [f"{i}.png,{10 * i},{i},{'train' if i < 6 else 'val' if i < 8 else 'test'}" for i in range(10)]
    path = photos / "meta_info_X.csv"
    path.write_text("\n".join(["img_name,mos,std,official_split", *rows]) + "\n")
    ref = f"pyiqa:{path}?root={photos / 'photos'}&mos_range=0,100"
    assert len(load_table(ref).split("test")) == 10
    table = load_table(ref + "&split=official_split")
    assert [len(table.split(r)) for r in ("train", "val", "test")] == [6, 2, 2]
    assert table.card.task == "NR" and table.frame["std"].iloc[5] == pytest.approx(0.2)
    with pytest.raises(UnknownNameError, match="Did you mean 'official_split'"):
        load_table(ref + "&split=offical_split")


def test_pyiqa_meta_info_with_references(photos: Path) -> None:
    rows = [f"ref{i // 2}.png,{i}.png,{i / 10}" for i in range(10)]
    path = photos / "meta_info_Y.csv"
    path.write_text("\n".join(["ref_name,dist_name,dmos", *rows]) + "\n")
    ref = f"pyiqa:{path}?root={photos / 'photos'}&mos_range=0,1"
    with pytest.raises(UriError, match="is a higher 'dmos' better"):
        load_table(ref)
    table = load_table(ref + "&higher_is_better=false&protocol=kfold&fold=1&val_fraction=0")
    assert table.card.task == "FR" and table.frame["mos"].iloc[0] == 5.0
    assert table.frame["content"].nunique() == 5
    assert not set(table.split("train")["content"]) & set(table.split("test")["content"])


def test_pyiqa_needs_the_images_folder_and_the_scale(photos: Path) -> None:
    path = photos / "meta_info_Z.csv"
    path.write_text("name,mos\n0.png,3\n")
    with pytest.raises(UriError, match="add root=FOLDER"):
        load_table(f"pyiqa:{path}?mos_range=1,5")
    with pytest.raises(UriError, match="mos_range=1,5"):
        load_table(f"pyiqa:{path}?root={photos / 'photos'}")


def test_every_error_is_one_the_command_line_prints_plainly() -> None:
    for error in (ConfigError, DatasetNotFoundError, ScoreTableError, UnknownNameError, UriError):
        assert issubclass(error, RaliZooError)


def test_where_keeps_a_part(photos: Path) -> None:
    table = scores(photos, camera=["a", "b"] * 5, split=["train"] * 8 + ["test"] * 2)
    ref = f"csv:{table}?mos_range=0,100"
    part = load_table(f"{ref}&where=camera:b")
    assert part.frame["id"].tolist() == [i for i in load_table(ref).frame["id"] if int(Path(i).stem) % 2]
    assert set(part.frame["camera"]) == {"b"} and len(part.split("test")) == 1
    for where in ("camera:c", "camera", "camra:b"):
        with pytest.raises(UriError, match="where=|no image has camera"):
            load_table(f"{ref}&where={where}")
