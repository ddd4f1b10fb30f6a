"""Formats of files, by their suffixes and by their first bytes; imports no decoder."""

import re
from typing import BinaryIO

from vaekit.data.decoding.files import UnusableError, open_regular


def _suffixes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


IMAGE_SUFFIXES = _suffixes(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm .jp2 .j2k "
    ".jpx .avif .heic .heif .hif .npy .dcm .nii .nii.gz .svg .psd .xcf .jxl .tga .ico .icns .exr "
    ".hdr .dds .eps .pcx .fits .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf"
)
"""Files with these are images: they are read, or listed with the reason why not."""
MEDICAL_SUFFIXES = (".dcm", ".nii", ".nii.gz")
RAW_SUFFIXES = (".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")
"""Of cameras: these hold thumbnails that other programs would take for the image."""
RAW = "camera RAW (convert it to TIFF or JPEG)"
OTHER_SUFFIXES = _suffixes(
    ".txt .md .json .jsonl .csv .tsv .xml .yaml .yml .toml .html .htm .pdf .py .ipynb .log .db .ini "
    ".zip .tar .gz .tgz .bz2 .xz .7z .rar .npz .pt .pth .h5 .hdf5 .parquet .mat .mp4 .mov .avi .mkv "
    ".webm .mp3 .wav .aae .xmp .sh .js .css .docx .xlsx .pptx .lst .idx .pkl .pickle .safetensors "
    ".onnx .exe .url"
)
"""Files with these are not images. What the rest are, their first bytes say."""

SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF.{4}WEBP",
    "BMP": rb"BM.{4}\0{4}",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "GIF": rb"GIF8[79]a",
    "PPM": rb"P[1-6]\s",
    "JPEG2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "AVIF": rb".{4}ftypavi[fs]",
    "HEIC": rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)",
    "NPY": rb"\x93NUMPY",
    "DICOM": rb".{128}DICM",
    "NIFTI": rb"\x5c\x01\0\0.{340}n[i+]1\0",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "PSD": rb"8BPS",
    "EXR": rb"\x76\x2f\x31\x01",
    "FITS": rb"SIMPLE  =",
}
"""First bytes of images, as regular expressions."""
NOT_IMAGES = {
    "Git LFS pointer (run `git lfs pull`)": rb"version https://git-lfs",
    "web page (HTML)": rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?(<!doctype html|<html|<head)",
    "SVG (convert it to PNG)": rb"\s*(<\?xml.*)?<svg",
    "XML document": rb"\s*<\?xml",
    "JSON document": rb"\s*[\[{]\s*[\[{\"]",
    "PDF document": rb"%PDF",
    "zip archive": rb"PK\x03\x04",
    "compressed by gzip": rb"\x1f\x8b",
}
"""What else a file under the name of an image may be, as the reason why it is not read."""
HEAD = 512
"""Bytes that the signatures need."""


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def sniff(head: bytes) -> str | None:
    """The format of an image, by the first bytes of its file; None if they are of no image."""
    return next((name for name, pattern in SIGNATURES.items() if re.match(pattern, head, re.DOTALL)), None)


def sniff_file(path: str) -> str | None:
    """The format of the image in a file; None for other files, and for those that cannot be read."""
    try:
        with open_regular(path) as file:
            return sniff(file.read(HEAD))
    except (OSError, UnusableError):
        return None


def other_kind(file: BinaryIO) -> str | None:
    """What a file is that holds no image, as the reason why it is not read; None if that is unknown."""
    file.seek(0)
    head = file.read(HEAD)
    if not head.strip(b"\0"):
        return "filled with zeros"
    flags = re.DOTALL | re.IGNORECASE
    return next((kind for kind, pattern in NOT_IMAGES.items() if re.match(pattern, head, flags)), None)
