"""Formats and suffixes of images and videos; nothing is imported to know them."""

from __future__ import annotations

#: Pillow's name of a format to its suffixes. Raster formats only: EPS and WMF run other programs, and the exotic
#: rest widens what a bad file can reach.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "ICO": (".ico",),
    "QOI": (".qoi",),
}
#: Suffixes of all files that :func:`~rali_zoo.data.images.load_image` can open, in lower case.
IMAGE_SUFFIXES = frozenset((".heic", ".heif", ".hif")).union(*FORMATS.values())
#: Suffixes of files that are taken for videos.
VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".y4m"))
