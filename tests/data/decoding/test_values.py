"""Values of more than 8 bits, bands, pages, and colours of embedded profiles become known levels."""

import io
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode
from PIL import Image, ImageCms

from vaekit.config.data import DataConfig
from vaekit.data.decoding.color import DAMAGED_PROFILE, UNFIT_PROFILE
from vaekit.data.decoding.decode import decode
from vaekit.data.decoding.files import UnusableError
from vaekit.data.decoding.resize import DecodeSpec
from vaekit.data.decoding.values import ValueRange, choose_range
from vaekit.data.packs.load_images import load_images
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.data.packs.reading import Reading
from vaekit.errors import spelled

RNG = np.random.default_rng(0)
SPEC = DecodeSpec(8, 6, "crop", (255, 255, 255), keep_alpha=False)


def integers(low: int, high: int, *shape: int, dtype: Any = np.uint16) -> np.ndarray:
    """Random values of which the first are `low` and `high`."""
    values = RNG.integers(low, high + 1, shape)
    values.flat[:2] = low, high
    return values.astype(dtype)


def folder(tmp_path: Path, *images: Any, suffix: str = "tif", **options: Any) -> Path:
    root = tmp_path / "set"
    root.mkdir(parents=True)
    for number, image in enumerate(images):
        path = root / f"{number}.{suffix}"
        if suffix == "png":
            path.write_bytes(png_encode(image))
        elif suffix == "npy":
            np.save(path, image)
        else:
            tifffile.imwrite(path, image, **options)
    return root


def pixels(pack: Pack) -> dict[str, np.ndarray]:
    return dict(zip(pack.paths(), np.asarray(pack.images), strict=True))


def are_levels(got: np.ndarray, values: np.ndarray, low: float, high: float) -> bool:
    """Whether `got` are values scaled to 0 to 255 and rounded, halves up or down."""
    exact = (values.clip(low, high).astype(float) - low) / (high - low) * 255
    return got.shape == exact.shape and bool(np.abs(got - exact).max() <= 0.5 + 1e-9)


RANGES = [
    (0, 4080, np.uint16, (0, 4095), "12 bits"),
    (5, 700, np.uint16, (0, 1023), "10 bits"),
    (0, 65535, np.uint16, (0, 65535), "16 bits"),
    (0, 200, np.uint16, (0, 255), "8 bits"),
    (-1000, 3000, np.int16, (-1000, 3000), "the lowest to the highest value of the set"),
    (0, 200_000, np.uint32, (0, 200_000), "the lowest to the highest value of the set"),
]


@pytest.mark.parametrize(("low", "high", "dtype", "limits", "why"), RANGES)
def test_one_range_for_the_whole_set(
    tmp_path: Path, low: int, high: int, dtype: Any, limits: tuple[int, int], why: str
) -> None:
    images = [integers(low, high, 6, 8, dtype=dtype)] + [
        integers(low, high // 2, 6, 8, dtype=dtype) for _ in range(9)
    ]
    pack = open_pack(folder(tmp_path, *images), DataConfig())
    got = pixels(pack)
    for number, image in enumerate(images):
        assert are_levels(got[f"{number}.tif"][..., 0], image, *limits), number
    assert f"10 images have values from {low:,} to {high:,}" in pack.summary and why in pack.summary
    assert pack.describe()["reading"]["limits"] == list(limits)


def test_a_range_far_wider_than_nearly_all_values_is_said(tmp_path: Path) -> None:
    images = [integers(0, 1000, 20, 30) for _ in range(8)]
    images[3][0, 0], images[4][0, 0], images[4][0, 1] = 65535, 60000, 40000
    root = folder(tmp_path, *images)
    summary = open_pack(root, DataConfig()).summary
    assert "99% of the pixels have 5 of 256 levels" in summary
    low, high = re.findall(r"over all levels: .*?(\d+):(\d+)", spelled(summary))[0]
    assert int(low) == 0 and 900 < int(high) < 1300
    assert "99% of the pixels" not in open_pack(root, DataConfig(range=f"{low}:{high}")).summary


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_in_gray_and_colour(tmp_path: Path, suffix: str, channels: int) -> None:
    images = [integers(0, 4095, 6, 8, channels).squeeze() for _ in range(4)]
    options = {"photometric": "rgb"} if channels == 3 and suffix == "tif" else {}
    pack = open_pack(folder(tmp_path, *images, suffix=suffix, **options), DataConfig())
    assert pack.shape == (channels, 6, 8)
    assert are_levels(pixels(pack)[f"1.{suffix}"].squeeze(), images[1], 0, 4095)


def test_given_ranges(tmp_path: Path) -> None:
    images = [integers(100, 900, 6, 8) for _ in range(4)]
    root = folder(tmp_path, *images)
    fixed = pixels(open_pack(root, DataConfig(range="200:600")))["0.tif"][..., 0]
    assert are_levels(fixed, images[0], 200, 600)
    of_set = pixels(open_pack(root, DataConfig(range="auto-set")))["0.tif"][..., 0]
    assert are_levels(of_set, images[0], 100, 900)
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(4):
        Image.fromarray(integers(1, 3, 6, 8, dtype=np.uint8)).save(masks / f"{number}.png")
    dark = open_pack(masks, DataConfig())
    assert "No pixel has a level above 3 of 255" in dark.summary and dark.images.max() == 3
    assert open_pack(masks, DataConfig(range="1:3")).images.max() == 255
    assert set(np.unique(open_pack(masks, DataConfig(range="auto-set")).images)) == {0, 128, 255}
    with pytest.raises(ValueError, match="must be auto, auto-set, or the values"):
        DataConfig(range="5:2")


def test_decimal_values(tmp_path: Path) -> None:
    assert choose_range([ValueRange(-0.01, 0.99, 0, True, 0, 0)])[:2] == (0, 1)
    assert choose_range([ValueRange(0, 240.5, 0, True, 0, 0)])[:2] == (0, 255)
    assert choose_range([ValueRange(0, 603.0, 0, True, 0, 0), ValueRange(-2, 5.0, 0, True, 0, 0)])[:2] == (
        -2,
        603,
    )
    assert choose_range([ValueRange(0, 1000, 4095, False, 0, 0)] * 2)[:2] == (0, 4095)  # as the files say
    images = [RNG.random((6, 8)) for _ in range(4)]
    pack = open_pack(folder(tmp_path, *images, suffix="npy"), DataConfig())
    assert np.array_equal(pixels(pack)["2.npy"][..., 0], np.rint(images[2] * 255))


def test_other_images_are_read_by_the_range_of_training(tmp_path: Path) -> None:
    path = folder(tmp_path, integers(0, 700, 6, 8)) / "0.tif"
    values = tifffile.imread(path)
    got = load_images([path], DataConfig(), (1, 6, 8), Reading(limits=(0, 4095)))
    assert are_levels(got[0, ..., 0], values, 0, 4095)
    bits = load_images([path], DataConfig(), (1, 6, 8), Reading())
    assert are_levels(bits[0, ..., 0], values, 0, 1023)


def test_bands(tmp_path: Path) -> None:
    images = [integers(0, 255, 6, 8, 5, dtype=np.uint8) for _ in range(4)]
    root = folder(tmp_path, *images, photometric="minisblack", planarconfig="contig")
    pack = open_pack(root, DataConfig())
    assert pack.shape == (5, 6, 8) and "All 5 bands are read. To read only some: " in pack.summary
    assert np.array_equal(pixels(pack)["3.tif"], images[3])
    chosen = open_pack(root, DataConfig(bands="4,2,1"))
    assert chosen.shape == (3, 6, 8) and np.array_equal(pixels(chosen)["3.tif"], images[3][..., [3, 1, 0]])
    assert open_pack(root, DataConfig(bands=[5])).shape == (1, 6, 8)
    plain = folder(tmp_path / "plain", *[image[..., :3].copy() for image in images], suffix="png")
    two = open_pack(plain, DataConfig(bands="3,1"))
    assert two.shape == (2, 6, 8) and np.array_equal(pixels(two)["2.png"], images[2][..., [2, 0]])
    Image.fromarray(images[0][..., :3]).save(root / "colour.png")
    pack = open_pack(root, DataConfig())
    assert pack.skipped == [("colour.png", "without the 5 bands of the others")] and len(pack.images) == 4


def test_pages(tmp_path: Path) -> None:
    stacks = [integers(0, 255, 3, 6, 8, dtype=np.uint8) for _ in range(4)]
    root = folder(tmp_path, *stacks, photometric="minisblack")
    first = open_pack(root, DataConfig())
    assert "4 files have up to 3 pages or frames, of which the first is read" in first.summary
    assert np.array_equal(pixels(first)["1.tif"][..., 0], stacks[1][0])
    assert np.array_equal(pixels(open_pack(root, DataConfig(pages="3")))["1.tif"][..., 0], stacks[1][2])
    assert np.array_equal(pixels(open_pack(root, DataConfig(pages="middle")))["1.tif"][..., 0], stacks[1][1])
    every = pixels(open_pack(root, DataConfig(pages="all")))
    assert len(every) == 12 and np.array_equal(every["1.tif[3]"][..., 0], stacks[1][2])


def test_ppm_of_more_than_8_bits(tmp_path: Path) -> None:
    images = [integers(0, 4095, 6, 8, 3) for _ in range(3)]
    root = tmp_path / "set"
    root.mkdir()
    for number, image in enumerate(images):
        header = b"P6 # a comment\n8 6\n65535\n"
        (root / f"{number}.ppm").write_bytes(header + image.astype(">u2").tobytes())
    pack = open_pack(root, DataConfig())
    assert "12 bits" in pack.summary
    assert all(are_levels(pixels(pack)[f"{i}.ppm"], image, 0, 4095) for i, image in enumerate(images))
    with pytest.raises(UnusableError, match="truncated"):
        decode(io.BytesIO(b"P6\n8 6\n65535\n" + bytes(99)), SPEC)


@pytest.mark.parametrize("format", ["AVIF", "PPM", "JPEG2000"])
def test_other_formats_of_pillow(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 60)).save(file, format)
    assert np.abs(np.asarray(decode(file, SPEC).picture).astype(int) - [200, 30, 60]).max() <= 4


def test_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 60))).save(file)
    assert np.abs(np.asarray(decode(file, SPEC).picture).astype(int) - [200, 30, 60]).max() <= 4


def test_dicom_and_nifti(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    nibabel = pytest.importorskip("nibabel")
    root = tmp_path / "set"
    root.mkdir()
    values = integers(0, 2000, 3, 6, 8)
    for number, image in enumerate(values):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 6, 8, 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            16,
            12,
            11,
            0,
        )
        dataset.PhotometricInterpretation, dataset.RescaleSlope, dataset.RescaleIntercept = (
            "MONOCHROME2",
            1,
            -1000,
        )
        dataset.PixelData = image.tobytes()
        dataset.save_as(root / f"{number}.dcm", enforce_file_format=True)
    got = pixels(open_pack(root, DataConfig(range="-1000:1000")))
    assert are_levels(got["1.dcm"][..., 0], values[1].astype(float) - 1000, -1000, 1000)
    volume = RNG.random((8, 6, 5)).astype(np.float32)
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(2):
        nibabel.save(nibabel.Nifti1Image(volume / (number + 1), np.eye(4)), scans / f"{number}.nii.gz")
    got = pixels(open_pack(scans, DataConfig(pages="middle")))
    assert np.array_equal(got["0.nii.gz"][..., 0], np.rint(np.rot90(volume[..., 2]) * 255))


def profile(gamma_red: float = 1.0) -> bytes:
    """A profile whose red and blue are those of sRGB exchanged, so that a conversion cannot be missed."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb)
    count = int.from_bytes(srgb[128:132], "big")
    tags = {srgb[132 + 12 * i : 136 + 12 * i]: 132 + 12 * i for i in range(count)}
    red, blue = tags[b"rXYZ"] + 4, tags[b"bXYZ"] + 4
    swapped[red : red + 8], swapped[blue : blue + 8] = srgb[blue : blue + 8], srgb[red : red + 8]
    return bytes(swapped).replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))


def test_colour_profiles_are_converted() -> None:
    colour = np.broadcast_to(np.array([200, 60, 30], np.uint8), (6, 8, 3))
    file = io.BytesIO()
    Image.fromarray(colour).save(file, "PNG", icc_profile=profile())
    converted = np.asarray(decode(file, SPEC).picture).astype(int)
    assert np.abs(converted - [30, 60, 200]).max() <= 2
    damaged = io.BytesIO()
    Image.fromarray(colour).save(damaged, "PNG", icc_profile=b"no profile")
    decoded = decode(damaged, SPEC)
    assert decoded.remark == DAMAGED_PROFILE and np.array_equal(np.asarray(decoded.picture), colour)


def test_lab() -> None:
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (8, 6), (200, 60, 30)), transform)
    file = io.BytesIO()
    image.save(file, "TIFF")
    assert np.abs(np.asarray(decode(file, SPEC).picture).astype(int) - [200, 60, 30]).max() <= 3


def test_arrays_of_wrong_shapes_are_refused(tmp_path: Path) -> None:
    for shape, reason in [((2, 6, 8, 3), "of shape"), ((2, 8, 8), "instead of one image")]:
        file = io.BytesIO()
        np.save(file, np.zeros(shape, np.uint8))
        with pytest.raises(UnusableError, match=reason):
            decode(file, SPEC)


@pytest.mark.parametrize("bands", [2, 4, 5])
def test_bands_of_8_bits_without_a_meaning_are_read(tmp_path: Path, bands: int) -> None:
    images = [integers(0, 255, 6, 8, bands, dtype=np.uint8) for _ in range(3)]
    photometric = "minisblack" if bands == 2 else "rgb"
    extra = (0,) * (bands - (1 if bands == 2 else 3))
    root = folder(tmp_path, *images, photometric=photometric, planarconfig="contig", extrasamples=extra)
    pack = open_pack(root, DataConfig())
    assert np.array_equal(pixels(pack)["1.tif"], images[1]) and f"All {bands} bands are read" in pack.summary


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_frames_of_animations_are_said_and_can_be_read(tmp_path: Path, suffix: str) -> None:
    levels = np.array([0, 120, 250], np.uint8)
    root = tmp_path / "set"
    root.mkdir()
    for number in range(3):
        frames = [Image.new("RGB", (8, 6), (level, level, 255 - number)) for level in levels.tolist()]
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(root / f"{number}.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert "3 files have up to 3 pages or frames" in open_pack(root, DataConfig()).summary
    every = pixels(open_pack(root, DataConfig(pages="all")))
    got = [every[name][0, 0, 0] for name in (f"1.{suffix}", f"1.{suffix}[2]", f"1.{suffix}[3]")]
    assert len(every) == 9 and np.abs(np.array(got).astype(int) - levels).max() <= 2


def test_values_that_are_not_finite_are_black_and_said(tmp_path: Path) -> None:
    images = [RNG.random((6, 8)).astype(np.float32) * 40 + 10 for _ in range(3)]
    images[1][0, 0], images[1][0, 1], images[1][0, 2] = np.nan, np.inf, -np.inf
    root = folder(tmp_path, *images, np.full((6, 8), np.nan, np.float32))
    pack = open_pack(root, DataConfig(range="10:50"))
    levels = pixels(pack)["1.tif"][..., 0]
    assert not levels[0, :3].any() and are_levels(levels[1:], images[1][1:], 10, 50)
    assert "1 x values that are no data, NaN or infinite, read as black, e.g. in 1.tif." in pack.summary
    assert pack.skipped == [("3.tif", "without a finite value")]


def test_gray_with_a_profile_of_colours() -> None:
    file = io.BytesIO()
    levels = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(levels).save(file, "PNG", icc_profile=profile())
    decoded = decode(file, SPEC)
    assert not decoded.remark and np.abs(np.asarray(decoded.picture).astype(int) - levels).max() <= 2


@pytest.mark.parametrize(("value", "ends"), [(-9999, "0:1000"), (65535, "0:1000")])
def test_a_value_far_from_all_others_is_said(tmp_path: Path, value: int, ends: str) -> None:
    images = [integers(0, 1000, 20, 30, dtype=np.int32) for _ in range(8)]
    for image in images:
        image[:5] = value
    images[0][6, :2] = 0, 1000
    summary = spelled(open_pack(folder(tmp_path, *images), DataConfig()).summary)
    assert f"{value:,}, is far from the others, 0 to 1,000, and may be an outlier" in summary
    assert f"range='{ends}'" in summary and "99% of the pixels" not in summary


def test_the_value_of_no_data_is_that_of_the_file(tmp_path: Path) -> None:
    images = [integers(0, 1000, 6, 8).astype(np.float32) for _ in range(3)]
    for image in images:
        image[0] = -9999
    tag = [(42113, "s", 0, "-9999", True)]
    pack = open_pack(folder(tmp_path, *images, extratags=tag), DataConfig(range="0:1000"))
    assert are_levels(pixels(pack)["1.tif"][1:, :, 0], images[1][1:], 0, 1000)
    assert "3 x values that are no data" in pack.summary


PLANES = {
    "16 bits": ((3, 6, 8), np.uint16, {}),
    "infrared": ((4, 6, 8), np.uint8, {"compression": "zlib", "extrasamples": (0,)}),
    "alpha and one more": ((5, 6, 8), np.uint8, {"extrasamples": (2, 0)}),
}


@pytest.mark.parametrize("name", PLANES)
def test_planes_of_tiff_are_read_whole(tmp_path: Path, name: str) -> None:
    shape, dtype, options = PLANES[name]
    images = [integers(0, 255 if dtype == np.uint8 else 65535, *shape, dtype=dtype) for _ in range(3)]
    root = folder(tmp_path, *images, photometric="rgb", planarconfig="separate", **options)
    got = pixels(open_pack(root, DataConfig()))["1.tif"]
    assert are_levels(got, np.moveaxis(images[1], 0, -1), 0, np.iinfo(dtype).max)


def test_signed_values_of_8_bits(tmp_path: Path) -> None:
    images = [integers(-100, 100, 6, 8, dtype=np.int8) for _ in range(3)]
    pack = open_pack(folder(tmp_path, *images), DataConfig())
    assert are_levels(pixels(pack)["1.tif"][..., 0], images[1], -100, 100)


def test_opacity_that_has_multiplied_colours_is_undone(tmp_path: Path) -> None:
    image = np.full((6, 8, 4), 30000, np.uint16)
    image[..., 3] = 60000
    root = folder(tmp_path, *[image + np.uint16(i) for i in range(3)], photometric="rgb", extrasamples=(1,))
    level = 30000 / 60000 * 255 * (60000 / 65535) + 255 * (1 - 60000 / 65535)
    got = pixels(open_pack(root, DataConfig(range="0:65535", copies="keep")))["0.tif"]
    assert np.abs(got.astype(float) - level).max() <= 1


def test_ycbcr_stays_in_colour_and_deep_cielab_is_refused(tmp_path: Path) -> None:
    colour = Image.new("RGB", (8, 6), (200, 60, 30))
    file = io.BytesIO()
    colour.convert("YCbCr").save(file, "TIFF", compression="tiff_lzw")
    assert np.abs(np.asarray(decode(file, SPEC).picture).astype(int) - [200, 60, 30]).max() <= 3
    lab = io.BytesIO()
    tifffile.imwrite(lab, integers(0, 65535, 6, 8, 3), photometric="cielab")
    with pytest.raises(UnusableError, match="CIELAB of more than 8 bits"):
        decode(lab, SPEC)


def test_colours_among_images_of_four_bands_are_refused(tmp_path: Path) -> None:
    images = [integers(0, 255, 6, 8, 4, dtype=np.uint8) for _ in range(4)]
    root = folder(tmp_path, *images, photometric="rgb", extrasamples=(0,))
    Image.fromarray(images[0][..., :3]).save(root / "colour.png")
    assert open_pack(root, DataConfig()).skipped == [("colour.png", "without the 4 bands of the others")]


def test_a_range_for_images_of_8_and_of_12_bits_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path, *[integers(0, 4095, 6, 8) for _ in range(3)])
    Image.fromarray(integers(0, 255, 6, 8, dtype=np.uint8)).save(root / "level.png")
    summary = spelled(open_pack(root, DataConfig(range="0:4095")).summary)
    assert "1 image of 8 bits is read by range='0:4095' too." in summary


def test_deep_images_for_a_model_of_levels_have_one_range(tmp_path: Path) -> None:
    images = [integers(0, high, 6, 8) for high in (4000, 900)]
    pack = open_pack(folder(tmp_path, *images), DataConfig(), reading=Reading(), splitting=False)
    assert are_levels(pixels(pack)["1.tif"][..., 0], images[1], 0, 4095) and "12 bits" in pack.summary


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA"])
def test_profiles_of_palettes_and_of_images_with_opacity(mode: str) -> None:
    colour = Image.new("RGB", (8, 6), (200, 60, 30))
    file = io.BytesIO()
    image = (
        colour.quantize(4) if mode == "P" else colour.convert("L").convert(mode) if mode == "LA" else colour
    )
    image.save(file, "PNG", icc_profile=profile())
    got = np.asarray(decode(file, SPEC).picture).astype(int)
    expected = [95] if mode == "LA" else [30, 60, 200]
    assert np.abs(got.reshape(48, -1)[0] - expected).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_profiles_of_images_of_16_bits(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for number in range(2):
        values = np.full((6, 8, 3), np.array([200, 60, 30]) * 257 + number, np.uint16)
        if suffix == "png":
            data = bytearray(png_encode(values))
            name = b"iCCP"
            chunk = b"p\0\0" + zlib.compress(profile())
            crc = zlib.crc32(name + chunk).to_bytes(4, "big")
            data[33:33] = len(chunk).to_bytes(4, "big") + name + chunk + crc
            (root / f"{number}.png").write_bytes(data)
        else:
            tifffile.imwrite(root / f"{number}.tif", values, photometric="rgb", iccprofile=profile())
    pack = open_pack(root, DataConfig(range="0:65535", copies="keep"), splitting=False)
    assert np.abs(np.asarray(pack.images).astype(int) - [30, 60, 200]).max() <= 3


def test_a_linear_profile_is_converted_though_it_is_named_srgb() -> None:
    named = profile().replace("xRGB".encode("utf-16-be"), "sRGB".encode("utf-16-be"))
    text = "built-in".encode("utf-16-be")
    assert text in named
    linear = named.replace(text, "linear  ".encode("utf-16-be"))
    for icc, expected in ((named, [200, 60, 30]), (linear, [30, 60, 200])):
        file = io.BytesIO()
        Image.new("RGB", (8, 6), (200, 60, 30)).save(file, "PNG", icc_profile=icc)
        assert np.abs(np.asarray(decode(file, SPEC).picture)[0, 0].astype(int) - expected).max() <= 3


def test_a_profile_for_other_colours_is_ignored_and_said() -> None:
    file = io.BytesIO()
    gray = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.new("RGB", (8, 6), (200, 60, 30)).save(file, "PNG", icc_profile=gray)
    decoded = decode(file, SPEC)
    assert decoded.remark == UNFIT_PROFILE and np.asarray(decoded.picture)[0, 0].tolist() == [200, 60, 30]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG", "AVIF"])
def test_the_size_is_that_of_upright_images(tmp_path: Path, format: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for number in range(3):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.fromarray(RNG.integers(0, 256, (16, 32, 3), dtype=np.uint8))
        picture.save(root / f"{number}.{format.lower()}", format, exif=exif)
    assert open_pack(root, DataConfig()).shape == (3, 32, 16)


def test_an_unfinished_png_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
    data = file.getvalue()
    padded, cut = data + bytes(2000), data[: len(data) // 2] + bytes(len(data) // 2)
    decode(io.BytesIO(padded), SPEC)
    with pytest.raises(UnusableError, match="truncated"):
        decode(io.BytesIO(cut), SPEC)
