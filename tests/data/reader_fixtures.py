"""Tiny data sets in their authors' formats: ``make(name, root)`` writes one to ``root / name``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.io import savemat


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (90, 120, 150)).save(path)


def cells(strings: Iterable[str], column: bool) -> np.ndarray:
    """A MATLAB cell array of strings, as the LIVE sets hold their names."""
    array = np.empty(len(names := list(strings)), dtype=object)
    array[:] = names
    return array[:, None] if column else array[None, :]


def koniq10k(root: Path) -> None:
    names = [f"{n}.jpg" for n in (10004473376, 10007357496, 1000816658, 1001003012)]
    for name in names:
        image(root / "1024x768" / name)
    mos, sd = [3.82857142857143, 3.47916666666667, 1.2, 4.1], [0.527, 0.58, 0.4, 0.61]
    counts = {f"c{i}": [0, 0, 0, 0] for i in range(1, 6)} | {"c_total": [105, 96, 101, 99]}
    folder = root / "koniq10k_scores_and_distributions"
    folder.mkdir()
    scores = pd.DataFrame(
        {"image_name": names, **counts, "MOS": mos, "SD": sd, "MOS_zscore": [77.4, 64.2, 11.0, 81.9]}
    )
    scores.to_csv(folder / "koniq10k_scores_and_distributions.csv", index=False)
    sets = ["training", "validation", "test", "training"]
    pd.DataFrame(
        {"image_name": names, **counts, "MOS": [77.4, 64.2, 11.0, 81.9], "SD": sd, "set": sets}
    ).to_csv(root / "koniq10k_distributions_sets.csv", index=False)
    deqa_lists(
        root / "metas", [f"KONIQ/images/{n}" for n in names[:2]], [f"KONIQ/images/{names[2]}"], "koniq"
    )


def deqa_lists(folder: Path, train: list[str], test: list[str], name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, images in (("train", train), ("test", test)):
        rows = []
        for i, image in enumerate(images):
            row = {
                "id": f"{Path(image).name}->3.5",
                "image": image,
                "gt_score": 3.5 - i,
                "gt_score_norm": 4.25 - i,
            }
            row |= {"std": 0.5, "std_norm": 0.6}
            if part == "train":
                row |= {"level_probs_org": [0.2] * 5, "level_probs": [0.3, 0.5, 0.15, 0.05, 0.0]}
            rows.append(row)
        (folder / f"{part}_{name}.json").write_text(json.dumps(rows, indent=4))


def spaq(root: Path) -> None:
    names = ["00001.jpg", "00002.jpg", "00003.jpg"]
    for name in names:
        image(root / "TestImage" / name)
    (root / "Annotations").mkdir()
    table = pd.DataFrame({"Image name": names, "MOS": [48.86, 62.5, 36]})
    for attribute in ("Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"):
        table[attribute] = [40.0, 50.0, 60.5]
    table.to_excel(root / "Annotations" / "MOS and Image attribute scores.xlsx", index=False)


def kadid10k(root: Path) -> None:
    rows = ["dist_img,ref_img,dmos,var"]
    scores = {
        "I01_01_01": (4.57, 0.496),
        "I01_10_05": (1.2, 0.4),
        "I81_25_04": (4.13, 0.7),
        "I02_11_03": (3.0, 1.0),
    }
    for stem, (dmos, var) in scores.items():
        rows.append(f"{stem}.png,{stem[:3]}.png,{dmos},{var}")
        image(root / "images" / f"{stem}.png")
        image(root / "images" / f"{stem[:3]}.png")
    (root / "dmos.csv").write_text("\n".join(rows) + "\n")


def pipal(root: Path) -> None:
    labels = {
        "A0001": {"00_00": 1520.0648, "00_01": 1437.0798, "05_12": 916.7136},
        "A0248": {"06_26": 1835.9856},
    }
    for index, (reference, scores) in enumerate(labels.items()):
        image(root / "Train_Ref" / f"{reference}.bmp")
        (root / "Train_Label").mkdir(exist_ok=True)
        lines = [f"{reference}_{k}.bmp,{v}" for k, v in scores.items()]
        (root / "Train_Label" / f"{reference}.txt").write_text("\n".join(lines) + "\n")
        for key in scores:
            image(root / f"Distortion_{1 + 3 * index}" / f"{reference}_{key}.bmp")


def livec(root: Path) -> None:
    trained = [f"t{i}.bmp" for i in range(1, 8)]
    names = [*trained, "3.bmp", "4.bmp", "1024.JPG"]
    for name in names:
        image(root / "Images" / ("trainingImages" if name in trained else "") / name)
    (root / "Data").mkdir()
    mos = np.array([*np.linspace(10, 90, 7), 63.9634, 25.3353, 3.42])[None, :]
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": cells(names, column=True)})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": mos})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": np.full((1, 10), 17.5)})


def konvid1k(root: Path) -> None:
    ids = (8536919744, 6408325533, 5319047612)
    videos = root / "KoNViD_1k_videos"
    videos.mkdir()
    rows = ["flickr_id,download_id,file_name,MOS,ti,si,colorfulness,contrast,blur,vniqe"]
    for number, (name, mos) in enumerate(zip(ids, (1.22, 3.26, 4.64), strict=True)):
        (videos / f"{name}.mp4").write_bytes(b"no video that can be decoded")
        rows.append(f"{name},{number},{name}_original_centercrop_960x540_8s.mp4,{mos},1,1,1,1,1,1")
    (root / "KoNViD_1k_attributes.csv").write_text("\n".join(rows) + "\n")


def livevqc(root: Path) -> None:
    names = ["A001.mp4", "A002.mp4", "F046.mp4"]
    (root / "Video").mkdir()
    for name in names:
        (root / "Video" / name).write_bytes(b"no video that can be decoded")
    mos = np.array([[80.2], [39.8], [6.2]])
    savemat(root / "data.mat", {"video_list": cells(names, column=True), "mos": mos})


def live(root: Path) -> None:
    folders = [("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174)]
    kept = {"jp2k/img2.bmp": 15.5129, "wn/img174.bmp": 111.7746935, "fastfading/img144.bmp": -2.64}
    names = [f"{folder}/img{i + 1}.bmp" for folder, count in folders for i in range(count)]
    originals = np.array([[0 if n in kept else 1 for n in names]], dtype=np.uint8)
    dmos = np.array([[kept.get(n, 0.0) for n in names]])
    references = ["sailing4.bmp" if n.startswith("fast") else "rapids.bmp" for n in names]
    for name in kept:
        image(root / name)
    savemat(root / "dmos_realigned.mat", {"dmos_new": dmos, "dmos_std": dmos * 0 + 8.0, "orgs": originals})
    savemat(root / "refnames_all.mat", {"refnames_all": cells(references, column=False)})


def agiqa3k(root: Path) -> None:
    names = ["AttnGAN_normal_000.jpg", "xl2.2_normal_298.jpg", "xl2.2_normal_299.jpg"]
    for name in names:
        image(root / "images" / name)
    (root / "data.csv").write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        f"{names[0]},statue of a man,,,,0.965602553,0.223270101,0.40889324,0.615607722\n"
        f'{names[1]},"a hunter, hyper detail",hyper detail,,,3.9039,0.6500,3.7896,0.6231\n'
        f'{names[2]},"a hunter, hyper detail",hyper detail,,,3.6008,0.4864,3.467,0.5534\n'
    )


# The folder "blur" is lower case on purpose: copies of the set differ in case.
CSIQ_ROWS = [
    ("1600", 1, "noise", 1, 0.061, 0.062, "AWGN/1600.AWGN.1.png"),
    ("1600", 2, "jpeg", 2, 0.05, 0.2, "JPEG/1600.JPEG.2.png"),
    ("1600", 3, "jpeg 2000", 5, 0.05, 1.0, "jpeg2000/1600.jpeg2000.5.png"),
    ("aerial_city", 4, "fnoise", 3, 0.09, 0.3, "fnoise/aerial_city.fnoise.3.png"),
    (
        "aerial_city",
        5,
        "blur",
        4,
        0.1,
        0.5,
        "blur/aerial_city.blur.4.png",
    ),
    ("woman", 6, "contrast", 4, 0.12, 0.46856, "contrast/woman.contrast.4.png"),
]


def csiq(root: Path) -> None:
    heads = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    table = pd.DataFrame([row[:6] for row in CSIQ_ROWS], columns=heads, dtype=object)
    table.loc[table["image"] == "1600", "image"] = 1600  # Excel holds this name as a number
    root.mkdir(parents=True, exist_ok=True)
    with pd.ExcelWriter(root / "csiq.DMOS.xlsx") as book:
        pd.DataFrame({"notes": ["see the paper"]}).to_excel(book, sheet_name="notes", index=False)
        table.to_excel(book, sheet_name="all_by_image", startrow=3, startcol=3, index=False)
    for row in CSIQ_ROWS:
        image(root / "dst_imgs" / row[6])


def tid2013(root: Path) -> None:
    scores = {"I01_01_1.bmp": 5.51429, "I01_24_5.bmp": 0.24242, "i25_10_3.bmp": 7.2143}
    on_disk = ["I01_01_1.bmp", "i01_24_5.bmp", "I25_10_3.BMP"]  # the real set mixes cases as well
    for name in on_disk:
        image(root / "distorted_images" / name)
    image(root / "reference_images" / "I01.BMP")
    (root / "mos_with_names.txt").write_text("".join(f"{mos} {name}\r\n" for name, mos in scores.items()))
    (root / "mos_std.txt").write_text("0.13013\r\n0.1\r\n0.15\r\n")


def biq2021(root: Path) -> None:
    parts = {
        "Train": {"ss03 (3753).jpg": 0.8471, "ss01 (1726).jpg": 0.2874},
        "Test": {"ss02 (167).jpg": 0.3522},
    }
    for part, scores in parts.items():
        root.mkdir(parents=True, exist_ok=True)
        lines = ["Image Name,MOS,,", *(f"{name},{mos:.4f},," for name, mos in scores.items())]
        (root / f"{part} (Images and MOS).csv").write_text("\n".join(lines) + "\n")
        for name in scores:
            image(root / "Images" / name)


def flive(root: Path) -> None:
    names = ["AVA__149.jpg", "voc_emotic_ava/JPEGImages__2007_000121.jpg", "EE371R/cj23478+019.jpg"]
    for name in names:
        image(root / "database" / name)
    rows = [f"{name},{mos},-1.2" for name, mos in zip(names, (73.02, 71.9, 41.25), strict=True)]
    (root / "labels_image.csv").write_text("\n".join(["name,mos,zscores", *rows]) + "\n")


def ava(root: Path) -> None:
    rows = (
        "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396",
        "2 953958 10 7 15 26 26 21 10 8 1 2 1 21 1396",
        "3 954184 0 0 0 0 2 0 0 0 0 2 0 0 1396",
    )
    (root / "AVA.txt").write_text("\n".join(rows) + "\n")
    for row in rows:
        image(root / "images" / f"{row.split()[1]}.jpg")


def aadb(root: Path) -> None:
    parts = {"Train": ("a.jpg", 0.25), "Validation": ("b.jpg", 0.5), "TestNew": ("c.jpg", 0.85)}
    (root / "imgListFiles_label").mkdir()
    for part, (name, score) in parts.items():
        (root / "imgListFiles_label" / f"imgList{part}Regression_score.txt").write_text(f"{name} {score}\n")
        folder = "AADB_newtest_originalSize" if part == "TestNew" else "datasetImages_originalSize"
        image(root / folder / name)


def uhdiqa(root: Path) -> None:
    rows = ["image_name,quality_mos,set,subset,orig_width,orig_height"]
    for name, part, mos in (
        ("1.jpg", "training", 0.61),
        ("2.jpg", "validation", 0.4),
        ("3.jpg", "test", 0.18),
    ):
        rows.append(f"{name},{mos},{part},,6000,4000")
        image(root / part / name)
    (root / "uhd-iqa-metadata.csv").write_text("\n".join(rows) + "\n")


def gfiqa20k(root: Path) -> None:
    names = ["1028.png", "2044.png"]
    for name in names:
        image(root / "image" / name)
    (root / "mos_val_rating.csv").write_text(f"img_name,mos\n{names[0]},0.581\n{names[1]},0.227\n")


def piq23(root: Path) -> None:
    head = (
        "IMAGE PATH,JOD,JOD STD,CI LOW,CI HIGH,CI RANGE,QUALITY LEVEL,CLUSTER,TOTAL COMPARISONS,IMAGE,SCENE,"
        "ATTRIBUTE,SCENE IDX,CONDITION"
    )
    rows = []
    for name, jod, scene in (
        ("66_Indoor_Scene_0.jpg", -3.7206, "Indoor_Scene_0"),
        ("31_Indoor_Scene_0.tiff", -1.7475, "Indoor_Scene_0"),
        ("4288_Outdoor_Scene_41.jpg", 3.6129, "Outdoor_Scene_41"),
    ):
        rows.append(f"Overall\\{name},{jod},0.5,-4,4,8,0,-1.0,143.0,{name},{scene},Overall,0,Indoor")
        image(root / "Overall" / name)
    (root / "Scores").mkdir()
    (root / "Scores" / "Scores_Overall.csv").write_text("\n".join([head, *rows]) + "\n")
    test = root / "Test split" / "Device Split"
    test.mkdir(parents=True)
    listed = [f"{head},SPLIT", f"{rows[2]},Test"]
    (test / "DeviceSplit_Test_Scores_Overall.csv").write_text("\n".join(listed) + "\n")


def aigciqa2023(root: Path) -> None:
    count = 2 * 6 * 4  # two prompts instead of 100
    (root / "DATA/MOS").mkdir(parents=True)
    scores = np.linspace(20, 80, count)[:, None]
    savemat(root / "DATA/MOS/mosz1.mat", {"MOSz": scores})
    savemat(root / "DATA/MOS/mosz3.mat", {"MOSz": scores[::-1]})
    prompts = pd.DataFrame([["Animals", "Basic", "a red cat"], ["Animals", "Complex", "a blue dog"]])
    prompts.to_excel(root / "AIGCIQA2023_Prompts.xlsx", index=False, header=False)
    for i in range(count):
        image(root / "Image" / "allimg" / f"{i}.png")


def aigiqa20k(root: Path) -> None:
    rows = {"train": ("DALLE2_0000.png", 3.8), "val": ("SDXL_0001.png", 1.25), "test": ("MJ_0002.png", 4.4)}
    for part, (name, mos) in rows.items():
        image(root / part / name)
        (root / f"info_{part}.csv").write_text(f'name,prompt,mos\n{name},"a corgi, {part}",{mos}\n')


def bid(root: Path) -> None:
    grades = {
        "Image Number": [1, 2, 586],
        "Average Subjective Grade": [4.19, 2.5, 0.4],
        "std": [0.6, 0.9, 0.4],
    }
    pd.DataFrame(grades).to_excel(root / "DatabaseGrades.xlsx", sheet_name="Plan1", index=False)
    for number in (1, 2, 586):
        image(root / f"DatabaseImage{number:04d}.JPG")


def cid2013(root: Path) -> None:
    names = ["IS_I_C01_D01", "IS_I_C01_D02", "IS_II_C02_D01"]
    for name, folder in zip(names, ("IS1/co1", "IS1/co1", "IS2/co2"), strict=True):
        image(root / folder / f"{name}.jpg")
    table = pd.DataFrame({"Source_ID": names, "Realigned MOS": [53.2, 71.9, 12.5]})
    table.to_excel(root / "CID2013 data - version 12112014.xlsx", sheet_name="CID2013 MOS", index=False)


def lsvq(root: Path) -> None:
    rows = (
        "ia-batch1/a,540,960,71.2,False",
        "yfcc-batch2/b,540,960,33.0,True",
        "yfcc-batch2/c,1080,1920,55.5,True",
    )
    for table, lines in (("train_test", rows[:2]), ("test_1080p", rows[2:])):
        head = "name,height,width,mos,is_test"
        (root / f"labels_{table}.csv").write_text("\n".join((head, *lines)) + "\n")
    for name in (row.split(",")[0] for row in rows):
        video = root / "videos" / f"{name}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(b"no video that can be decoded")


def youtubeugc(root: Path) -> None:
    videos = root / "original_videos_h264"
    videos.mkdir()
    vids = ["Animation_360P-08c9", "Gaming_720P-0fbd"]
    for vid in vids:
        (videos / f"{vid}_crf_10_ss_00_t_20.0.mp4").write_bytes(b"no video that can be decoded")
    table = pd.DataFrame({"vid": vids, "category": ["Animation", "Gaming"], "MOS full": [3.9, 4.21]})
    table.to_excel(root / "original_videos_MOS_for_YouTube_UGC_dataset.xlsx", sheet_name="MOS", index=False)


def pcuid(root: Path) -> None:
    for name in ("003.jpg", "004.jpg"):
        image(root / "images" / name)
    (root / "scores.csv").write_text(
        "image,mos,split\nimages/003.jpg,56.8562,test\nimages/004.jpg,83.2776,train\n"
    )


def tid2008(root: Path) -> None:
    scores = {"I01_01_1.bmp": 5.9706, "I04_17_4.bmp": 6.25}
    for name in ("i01_01_1.bmp", "I04_17_4.bmp"):
        image(root / "distorted_images" / name)
    image(root / "reference_images" / "I04.BMP")
    (root / "mos_with_names.txt").write_text("".join(f"{mos} {name}\r\n" for name, mos in scores.items()))
    (root / "mos_std.txt").write_text("0.13\r\n0.2\r\n")


MAKERS = {
    f.__name__: f
    for f in (
        *(aadb, agiqa3k, aigciqa2023, aigiqa20k, ava, bid, biq2021, cid2013, csiq, flive, gfiqa20k),
        *(kadid10k, koniq10k, konvid1k, live, livec, livevqc, lsvq, pcuid, pipal, piq23, spaq),
        *(tid2008, tid2013, uhdiqa, youtubeugc),
    )
}


def make(name: str, root: Path) -> Path:
    """Write the data set ``name`` to ``root / name`` and return that folder."""
    folder = root / name
    folder.mkdir(parents=True)
    MAKERS[name](folder)
    return folder
