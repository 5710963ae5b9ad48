"""Readers: each on a folder in its authors' format, right and wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from reader_fixtures import MAKERS, image, make

from rali_zoo.data.readers import frame as frames
from rali_zoo.data.registry import DATASETS
from rali_zoo.data.tables import load_table
from rali_zoo.errors import DatasetNotFoundError, ScoreTableError

SCORES = Path(__file__).resolve().parents[3] / "shared" / "data" / "score_tables"
needs_scores = pytest.mark.skipif(not SCORES.is_dir(), reason="needs the published score tables in ../shared")

#: name -> (rows, id of one row, its mos, std, split, content, distortion, level)
EXPECTED = {
    "aadb": (3, "c.jpg", 0.85, None, "test", "c.jpg", "", 0),
    "aigciqa2023": (48, "12.png", 20 + 60 * 12 / 47, None, "", "a blue dog", "", 0),
    "aigiqa20k": (3, "SDXL_0001.png", 1.25, None, "val", "a corgi, val", "", 0),
    "ava": (3, "954184.jpg", 7.5, 2.5, "", "954184.jpg", "", 0),
    "bid": (3, "DatabaseImage0586.JPG", 0.4, 0.4, "", "DatabaseImage0586.JPG", "", 0),
    "cid2013": (3, "IS_I_C01_D02.jpg", 71.9, None, "", "IS_I_C01", "", 0),
    "flive": (3, "EE371R/cj23478+019.jpg", 41.25, None, "", "EE371R/cj23478+019.jpg", "", 0),
    "gfiqa20k": (2, "2044.png", 0.227, None, "", "2044.png", "", 0),
    "lsvq": (3, "yfcc-batch2/b.mp4", 33.0, None, "test", "yfcc-batch2/b.mp4", "", 0),
    "pcuid": (2, "003.jpg", 56.8562, None, "test", "003.jpg", "", 0),
    "piq23": (3, "4288_Outdoor_Scene_41.jpg", 3.6129, 0.5, "test", "Outdoor_Scene_41", "", 0),
    "tid2008": (2, "I04_17_4.bmp", 6.25, 0.2, "", "I04", "contrast_change", 4),
    "uhdiqa": (3, "2.jpg", 0.4, None, "val", "2.jpg", "", 0),
    "youtubeugc": (2, "Gaming_720P-0fbd", 4.21, None, "", "Gaming_720P-0fbd", "", 0),
    "agiqa3k": (3, "xl2.2_normal_299.jpg", 3.6008, 0.4864, "", "a hunter, hyper detail", "", 0),
    "biq2021": (3, "ss02 (167).jpg", 0.3522, None, "test", "ss02 (167).jpg", "", 0),
    "csiq": (6, "1600.jpeg2000.5.png", 1.0, 0.05, "", "1600", "jpeg2000", 5),
    "kadid10k": (4, "I01_10_05.png", 1.2, 0.4, "", "I01", "jpeg", 5),
    "koniq10k": (4, "10007357496.jpg", 3.47916666666667, 0.58, "val", "10007357496.jpg", "", 0),
    "konvid1k": (3, "6408325533.mp4", 3.26, None, "", "6408325533.mp4", "", 0),
    "live": (3, "wn/img174.bmp", 111.7746935, 8.0, "", "rapids", "white_noise", 0),
    "livec": (3, "1024.JPG", 3.42, 17.5, "", "1024.JPG", "", 0),
    "livevqc": (3, "A002.mp4", 39.8, None, "", "A002.mp4", "", 0),
    "pipal": (4, "A0001_05_12.bmp", 916.7136, None, "", "A0001", "pipal_05", 0),
    "spaq": (3, "00003.jpg", 36.0, None, "", "00003.jpg", "", 0),
    "tid2013": (3, "I01_24_5.bmp", 0.24242, 0.1, "", "I01", "sparse_sampling_and_reconstruction", 5),
}


def test_every_reader_has_a_fixture() -> None:
    assert set(MAKERS) == set(DATASETS) == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_reader_reads_its_authors_files(name: str, tmp_path: Path) -> None:
    frame = DATASETS[name].read(make(name, tmp_path))
    rows, identity, mos, std, split, content, distortion, level = EXPECTED[name]
    assert len(frame) == rows and frame["id"].is_unique
    assert tuple(frame.columns[: len(frames.COLUMNS)]) == frames.COLUMNS
    assert all(Path(p).is_file() for p in frame["path"])
    row = frame.set_index("id").loc[identity]
    assert row["mos"] == pytest.approx(mos)
    assert pd.isna(row["std"]) if std is None else row["std"] == pytest.approx(std)
    assert (row["split"], row["content"], row["distortion"], row["level"]) == (
        split,
        content,
        distortion,
        level,
    )


#: name -> (id, its reference image) for sets of distorted images
REFERENCES = {
    "csiq": ("1600.jpeg2000.5.png", "src_imgs/1600.png"),
    "kadid10k": ("I01_10_05.png", "images/I01.png"),
    "live": ("wn/img174.bmp", "refimgs/rapids.bmp"),
    "pipal": ("A0001_05_12.bmp", "Train_Ref/A0001.bmp"),
    "tid2008": ("I04_17_4.bmp", "reference_images/I04.BMP"),
    "tid2013": ("I01_24_5.bmp", "reference_images/I01.BMP"),
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_references_are_there_or_empty(name: str, tmp_path: Path) -> None:
    identity, file = REFERENCES[name]
    root = make(name, tmp_path)
    (root / file).unlink(missing_ok=True)
    assert DATASETS[name].read(root).set_index("id").loc[identity, "reference"] == ""
    image(root / file)
    table = load_table(f"{name}?root={root}&protocol=whole")
    assert table.frame.set_index("id").loc[identity, "reference"] == str(root / file)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_score_without_an_image_is_named(name: str, tmp_path: Path) -> None:
    root = make(name, tmp_path)
    frame = DATASETS[name].read(root)
    lost = frame.iloc[-1 - len(frame) // 10 :]
    for path in lost["path"]:
        Path(path).unlink()
    with pytest.raises(ScoreTableError, match="not on disk") as caught:
        DATASETS[name].read(root)
    assert f"{len(lost)} of {EXPECTED[name][0]} images" in str(caught.value)
    assert lost["id"].iloc[0] in str(caught.value)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_missing_folder_or_file_tells_the_layout(name: str, tmp_path: Path) -> None:
    card = DATASETS[name].CARD
    with pytest.raises(DatasetNotFoundError) as caught:
        DATASETS[name].read(tmp_path / "nowhere")
    for part in (str(tmp_path / "nowhere") + " does not exist", card.layout, card.url):
        assert part in str(caught.value)
    root = make(name, tmp_path)
    for entry in sorted(root.iterdir()):  # one thing after the other goes, until the reader minds
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with pytest.raises(DatasetNotFoundError, match="Expected layout"):
        DATASETS[name].read(root)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "words"),
    [
        (
            "koniq10k",
            "koniq10k_scores_and_distributions/koniq10k_scores_and_distributions.csv",
            "1.2,",
            "77.4,",
            "outside",
        ),
        ("koniq10k", "koniq10k_distributions_sets.csv", "validation", "dev", "unknown split dev"),
        (
            "koniq10k",
            "koniq10k_distributions_sets.csv",
            "10004473376",
            "999",
            "does not say the set of 10004473376",
        ),
        ("kadid10k", "dmos.csv", "4.13", "n/a", r"'dmos' holds no number in row 2 \('n/a'\)"),
        ("kadid10k", "dmos.csv", "I81_25_04", "I81_26_04", "not like I01_01_01.png: I81_26_04"),
        ("kadid10k", "dmos.csv", "dmos,var", "score,var", "has no column dmos"),
        ("kadid10k", "dmos.csv", "I01_10_05", "I01_01_01", "names an image twice: I01_01_01"),
        ("kadid10k", "dmos.csv", "1.2,0.4", "1.2,-0.4", "impossible standard deviations: I01_10_05"),
        ("pipal", "Train_Label/A0001.txt", "916.7136", "", "holds no number"),
        (
            "pipal",
            "Train_Label/A0001.txt",
            "1437.0798",
            "901.5",
            r"outside the range .* A0001_00_01.bmp \(901.5\)",
        ),
        ("tid2013", "mos_std.txt", "0.15\n", "", "has 2 lines for 3 scores"),
        ("tid2013", "mos_with_names.txt", "I01_24_5", "I01_25_5", "not like I01_01_1.bmp"),
        ("biq2021", "Train (Images and MOS).csv", "0.8471", "8.471", "outside the range"),
        ("agiqa3k", "data.csv", "mos_quality", "mos", "has no column mos_quality"),
    ],
)
def test_wrong_rows_are_named(name: str, file: str, old: str, new: str, words: str, tmp_path: Path) -> None:
    root = make(name, tmp_path)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ScoreTableError, match=words):
        DATASETS[name].read(root)


def test_broken_containers_are_score_table_errors(tmp_path: Path) -> None:
    for name, file in (
        ("spaq", "Annotations/MOS and Image attribute scores.xlsx"),
        ("csiq", "csiq.DMOS.xlsx"),
        ("livec", "Data/AllMOS_release.mat"),
        ("live", "dmos_realigned.mat"),
    ):
        root = make(name, tmp_path)
        (root / file).write_bytes(b"\x00not what it says")
        with pytest.raises(ScoreTableError, match="readable"):
            DATASETS[name].read(root)


def test_documented_variants(tmp_path: Path) -> None:
    koniq = make("koniq10k", tmp_path)
    (koniq / "koniq10k_scores_and_distributions" / "koniq10k_scores_and_distributions.csv").rename(
        koniq / "koniq10k_scores_and_distributions.csv"
    )
    (koniq / "1024x768").rename(koniq / "512x384")
    (koniq / "koniq10k_distributions_sets.csv").unlink()
    frame = DATASETS["koniq10k"].read(koniq)
    assert set(frame["split"]) == {""} and "512x384" in frame["path"][0]

    livec = make("livec", tmp_path / "inner")
    (tmp_path / "livec").mkdir()
    livec.rename(tmp_path / "livec" / "ChallengeDB_release")
    assert len(DATASETS["livec"].read(tmp_path / "livec")) == 3

    csiq = make("csiq", tmp_path)
    sheet = DATASETS["csiq"]._sheet(csiq / "csiq.DMOS.xlsx")
    workbook = DATASETS["csiq"].read(csiq)
    sheet.to_csv(csiq / "csiq.DMOS.csv", index=False)
    (csiq / "csiq.DMOS.xlsx").unlink()
    pd.testing.assert_frame_equal(DATASETS["csiq"].read(csiq), workbook)


def test_underwater_photographs(shared) -> None:
    frame = DATASETS["pcuid"].read(shared / "data" / "pcuid")
    assert len(frame) == 148 and frame["split"].value_counts().to_dict() == {"train": 98, "test": 50}


def test_images_of_uhd_iqa_where_others_keep_them(tmp_path: Path) -> None:
    root = make("uhdiqa", tmp_path)
    frame = DATASETS["uhdiqa"].read(root)
    (root / "challenge").mkdir()
    for part in ("training", "validation", "test"):
        (root / part).rename(root / "challenge" / part)
    assert (DATASETS["uhdiqa"].read(root)["id"] == frame["id"]).all()
    (root / "database").mkdir()
    for path in (root / "challenge").glob("*/*.jpg"):
        path.rename(root / "database" / path.name)
    pd.testing.assert_frame_equal(
        DATASETS["uhdiqa"].read(root).drop(columns="path"), frame.drop(columns="path")
    )


def test_quality_and_aesthetics_are_not_pooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from rali_zoo.bench.engines import run_suite
    from rali_zoo.bench.suite import parse_suite
    from rali_zoo.cli.calibrate import command as calibrate
    from rali_zoo.data.datamodule import IQADataModule
    from rali_zoo.errors import ConfigError

    assert {n for n in DATASETS if DATASETS[n].CARD.question == "aesthetics"} == {"aadb", "ava"}
    for name in ("aadb", "ava", "uhdiqa"):
        make(name, tmp_path)
    refs = [f"aadb?root={tmp_path / 'aadb'}", f"uhdiqa?root={tmp_path / 'uhdiqa'}"]
    for train, test in ((refs, []), (refs[:1], refs[1:])):
        with pytest.raises(ConfigError, match="not pooled .aadb: aesthetics; uhdiqa: quality"):
            IQADataModule(train=train, val=[], test=test).prepare_data()
    suite = parse_suite({"models": ["photo"], "datasets": refs, "cost": False}, "mine")
    with pytest.raises(ConfigError, match="different questions"):
        run_suite(suite, tmp_path / "results")
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr("rali_zoo.zoo.load_model", lambda *_: SimpleNamespace(training_sets=("ava",)))
    for data in (refs, refs[1:]):  # also where only the reference model was trained on the other question
        with pytest.raises(ConfigError, match="different questions"):
            calibrate(data, model="mine", output=tmp_path / "scales.json")
    IQADataModule(train=[refs[0], f"ava?root={tmp_path / 'ava'}"], val=[], test=[]).prepare_data()


def test_a_part_of_biq2021_as_one_table(tmp_path: Path) -> None:
    root = make("biq2021", tmp_path)
    (root / "scores.csv").write_text("image,mos,split,subset\nImages/ss03 (3753).jpg,0.8,test,ss03\n")
    frame = DATASETS["biq2021"].read(root)
    assert frame[["id", "mos", "split", "subset"]].values.tolist() == [
        ["ss03 (3753).jpg", 0.8, "test", "ss03"]
    ]


# ---- the real names and scores, without the images ------------------------------------------------------


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "missing_files", lambda paths: [])


def published(file: str) -> pd.DataFrame:
    table = pd.read_csv(SCORES / file)
    table["name"] = [Path(p).name for p in table["dis_img_path"]]
    if "ref_img_path" in table:
        table["ref"] = [Path(p).name for p in table["ref_img_path"]]
    return table


def write_real(name: str, root: Path) -> pd.DataFrame:
    """The real scores of a data set in its authors' format; returns the table they come from."""
    if name == "kadid10k":
        table = published("KADID-10k.txt")
        (root / "images").mkdir()
        columns = {"dist_img": table["name"], "ref_img": table["ref"], "dmos": table["score"], "var": 0.5}
        pd.DataFrame(columns).to_csv(root / "dmos.csv", index=False)
    elif name == "tid2013":
        table = published("TID2013.txt")
        (root / "distorted_images").mkdir()
        lines = [f"{s} {n}\n" for s, n in zip(table["score"], table["name"], strict=True)]
        (root / "mos_with_names.txt").write_text("".join(lines))
    elif name == "pipal":
        table = published("PIPAL.txt")
        for folder in ("Train_Label", "Distortion_1"):
            (root / folder).mkdir()
        for ref, rows in table.groupby("ref"):
            rows[["name", "score"]].to_csv(
                root / "Train_Label" / f"{Path(str(ref)).stem}.txt", index=False, header=False
            )
    else:
        table = published("CSIQ.txt")
        (root / "dst_imgs").mkdir()
        parts = table["name"].str.extract(r"^(?P<image>[^.]+)\.(?P<type>[^.]+)\.(?P<level>\d)\.png$")
        words = {"AWGN": "noise", "BLUR": "blur", "JPEG": "jpeg", "jpeg2000": "jpeg 2000"}
        columns = {
            "image": parts["image"],
            "dst_type": parts["type"].replace(words),
            "dst_lev": parts["level"],
        }
        pd.DataFrame({**columns, "dmos_std": 0.1, "dmos": table["score"]}).to_csv(
            root / "csiq.DMOS.csv", index=False
        )
    return table


@needs_scores
@pytest.mark.usefixtures("no_images")
@pytest.mark.parametrize(
    ("name", "contents", "kinds"),
    [("kadid10k", 81, 25), ("tid2013", 25, 24), ("pipal", 200, 7), ("csiq", 30, 6)],
)
def test_real_names_scores_and_distortions(name: str, contents: int, kinds: int, tmp_path: Path) -> None:
    real = write_real(name, tmp_path)
    frame = DATASETS[name].read(tmp_path)
    assert len(frame) == DATASETS[name].CARD.n_images == len(real)
    assert frame["content"].nunique() == contents and frame["distortion"].nunique() == kinds
    merged = frame.merge(real, left_on="id", right_on="name")
    assert len(merged) == len(frame)
    assert (merged["mos"] - merged["score"]).abs().max() < 1e-9
    # Someone else's naming of the same distortions: each of ours is one of theirs.
    assert (merged.groupby("distortion")["dis_type"].nunique() == 1).all()
    if name in ("kadid10k", "csiq"):
        assert (merged.groupby("dis_type")["distortion"].nunique() == 1).all()
    ours = merged.drop_duplicates("distortion").set_index("distortion")["dis_type"]
    for distortion, theirs in (("jpeg", "JPEG"), ("jpeg2000", "JP2K"), ("gaussian_blur", "GBLUR")):
        assert name == "pipal" or ours[distortion] == theirs
