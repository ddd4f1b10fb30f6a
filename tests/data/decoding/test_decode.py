"""Every kind of image that people have decodes to known pixels."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from command import huge_png
from vaekit.data.decoding.decode import decode
from vaekit.data.decoding.files import UnusableError
from vaekit.data.decoding.resize import DecodeSpec, resize, to_bytes
from vaekit.data.decoding.survey import probe

WHITE = (255, 255, 255)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 3), np.uint8)
GRAY = RNG.integers(0, 256, (6, 8), np.uint8)
ALPHA = np.concatenate([COLOUR, RNG.integers(0, 256, (6, 8, 1), np.uint8)], 2)
ALPHA[0, 0, 3], ALPHA[1, 1, 3] = 0, 255


def target(width: int = 8, height: int = 6, fit: str = "crop", background: Any = WHITE, keep: bool = False):
    return DecodeSpec(width, height, fit, background, keep)


def encoded(image: Image.Image, format: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    return io.BytesIO(file.getvalue())


def decoded(image: Image.Image, format: str, spec: DecodeSpec | None = None, **options: Any) -> np.ndarray:
    return np.asarray(decode(encoded(image, format, **options), spec or target())[0])


def over(rgba: np.ndarray, ground: tuple[int, int, int]) -> np.ndarray:
    a = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * a + np.array(ground) * (1 - a)


PLAIN = [(format, {}) for format in ("PNG", "BMP", "TIFF")]
PACKED = [("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})]


@pytest.mark.parametrize(("format", "options"), PLAIN + PACKED)
def test_colour_is_exact_in_lossless_formats(format: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decoded(Image.fromarray(COLOUR), format, **options), COLOUR)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_gray_one_bit_and_palettes(format: str) -> None:
    assert np.array_equal(decoded(Image.fromarray(GRAY), format), GRAY)
    assert np.array_equal(decoded(Image.fromarray(GRAY > 127), format), np.where(GRAY > 127, 255, 0))
    indexed = Image.fromarray(COLOUR).quantize(16)
    assert np.array_equal(decoded(indexed, format), np.asarray(indexed.convert("RGB")))


def test_jpegs_and_palettes_of_gray_stay_gray() -> None:
    got = decoded(Image.fromarray(np.full((6, 8), 77, np.uint8)), "JPEG")
    assert got.shape == (6, 8) and (got == 77).all()
    indexed = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3, "P")
    indexed.putpalette([9, 9, 9, 100, 100, 100, 200, 200, 200])
    got = decoded(indexed, "PNG")
    assert got.ndim == 2 and set(np.unique(got)) == {9, 100, 200}


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palette_with_transparency_shows_the_background(format: str) -> None:
    indexed = Image.fromarray((np.arange(48, dtype=np.uint8).reshape(6, 8) % 3), "P")
    indexed.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 99])
    got = decoded(indexed, format, target(background=(1, 2, 3)), transparency=1)
    colours = np.array([[10, 20, 30], [1, 2, 3], [0, 0, 99]], np.uint8)
    assert np.array_equal(got, colours[np.asarray(indexed)])


def test_transparency_of_gray_and_colour() -> None:
    gray = np.where(GRAY > 127, 200, 50).astype(np.uint8)
    got = decoded(Image.fromarray(gray), "PNG", transparency=50)
    assert np.array_equal(got, np.where(gray == 50, 255, 200))
    assert np.array_equal(decoded(Image.fromarray(ALPHA), "PNG", target(keep=True)), ALPHA)
    gray = Image.fromarray(ALPHA[..., 2:])
    assert gray.mode == "LA"
    on_white, on_red = decoded(gray, "PNG"), decoded(gray, "PNG", target(background=(255, 0, 0)))
    rgba = ALPHA[..., [2, 2, 2, 3]]
    assert on_white.shape == (6, 8) and np.abs(on_white - over(rgba, WHITE)[..., 0]).max() <= 1
    assert on_red.shape == (6, 8, 3) and np.abs(on_red - over(rgba, (255, 0, 0))).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("ground", [WHITE, (0, 0, 0), (255, 128, 0)])
def test_alpha_is_composited(format: str, ground: tuple[int, int, int]) -> None:
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    got = decoded(Image.fromarray(ALPHA), format, target(background=ground), **options)
    assert got.shape == (6, 8, 3)
    assert np.abs(got - over(ALPHA, ground)).max() <= 1
    assert got[0, 0].tolist() == list(ground) and got[1, 1].tolist() == ALPHA[1, 1, :3].tolist()


@pytest.mark.parametrize("keep", [False, True])
def test_transparent_colours_do_not_bleed(keep: bool) -> None:
    hidden = np.zeros((16, 16, 4), np.uint8)
    hidden[..., 0] = 255  # red everywhere, but what can be seen is blue
    hidden[:, 8:] = (0, 0, 255, 255)
    got = decoded(Image.fromarray(hidden), "PNG", target(4, 4, keep=keep))
    if keep:
        assert got[..., 0][got[..., 3] > 0].max() <= 1
    else:
        assert np.abs(got[:, 0].astype(int) - 255).max() <= 12 and got[:, 3, 2].min() >= 243
        assert np.array_equal(got[..., 0], got[..., 1])  # white to blue has as much red as green


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_are_scaled(order: str) -> None:
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    expected = np.rint(values / 257)
    file = io.BytesIO()
    if order == "<":
        Image.fromarray(values).save(file, "PNG")
    else:
        Image.frombytes("I;16B", (8, 6), values.astype(">u2").tobytes()).save(file, "TIFF")
    got = np.asarray(decode(io.BytesIO(file.getvalue()), target())[0])
    assert got.dtype == np.uint8 and got.shape == (6, 8)
    assert np.abs(got - expected).max() <= 1 and got.min() == 0 and got.max() == 255


def test_tiffs_of_16_bits_and_of_floats() -> None:
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    plain = decoded(Image.fromarray(values), "TIFF")
    inverted = decoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(plain.astype(int), 255 - inverted.astype(int)) and plain[0, 0] == 0
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    assert np.array_equal(decoded(Image.fromarray(values), "TIFF"), np.rint(values * 255))
    for wrong in (values * 2, values - 0.5, values * np.nan):
        with pytest.raises(UnusableError, match=r"with(out a finite value| values from)"):
            decoded(Image.fromarray(wrong), "TIFF")


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk(format: str) -> None:
    inks = np.zeros((64, 64, 4), np.uint8)
    inks[..., 1] = 255  # magenta ink reflects red and blue
    got = decoded(Image.fromarray(inks, "CMYK"), format, target(8, 8))
    assert got.shape == (8, 8, 3) and np.abs(got.astype(int) - [255, 0, 255]).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    got = decoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (got == [255, 0, 0]).all()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied(format: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if format == "WEBP" else {}
    file = encoded(Image.fromarray(COLOUR), format, exif=exif, **options)
    with Image.open(file) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    height, width = upright.shape[:2]
    assert (width, height) == ((6, 8) if turn >= 5 else (8, 6))
    file.seek(0)
    got, size, _ = decode(file, target(width, height))
    assert np.array_equal(np.asarray(got), upright) and size == (width, height)


def photo(width: int, height: int) -> Image.Image:
    """Smooth colours with an edge, no two sides alike."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / width, 255 * y / height
    blue = np.where(x + y > width / 2, 200, 40)
    return Image.fromarray(np.stack([red, green, blue], 2).astype(np.uint8))


@pytest.mark.parametrize("fitting", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_drafted_jpeg_matches_a_full_decode(turn: int, fitting: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = encoded(photo(803, 601), "JPEG", quality=90, exif=exif)
    spec = target(48, 32, fitting)
    with Image.open(file) as image:
        full = resize(ImageOps.exif_transpose(image).convert("RGB"), spec)
        assert probe(file)[:2] == ((601, 803) if turn >= 5 else (803, 601))
    file.seek(0)
    got, size, _ = decode(file, spec)
    assert got.size == (48, 32) and size == ((601, 803) if turn >= 5 else (803, 601))
    assert np.abs(np.asarray(got).astype(int) - np.asarray(full)).mean() < 0.5


def test_crop_pad_and_stretch() -> None:
    image = Image.fromarray(np.repeat(np.array([10, 20, 30, 40], np.uint8), 4)[None].repeat(8, 0))
    assert image.size == (16, 8)
    fits = ("crop", "pad", "stretch")
    crop, pad, stretch = (np.asarray(resize(image, target(8, 8, how, (7, 7, 7)))) for how in fits)
    assert crop[0].tolist() == [20] * 4 + [30] * 4
    assert (pad[:2] == 7).all() and (pad[6:] == 7).all() and pad[3, [0, 7]].tolist() == [10, 40]
    assert stretch[3, [0, 7]].tolist() == [10, 40] and stretch.shape == (8, 8)
    gray = resize(Image.fromarray(GRAY), target(8, 8, "pad", (255, 0, 0)))
    pixels = np.asarray(gray)
    assert pixels[0, 0].tolist() == [255, 0, 0] and np.array_equal(pixels[1:7, :, 1], GRAY)
    padded = np.asarray(resize(Image.fromarray(ALPHA), target(8, 8, "pad", keep=True)))
    assert padded[0, 0].tolist() == [0, 0, 0, 0] and np.array_equal(padded[1:7], ALPHA)


def test_sizes_and_channels() -> None:
    file = encoded(photo(400, 300), "MPO", save_all=True, append_images=[Image.new("RGB", (400, 300))])
    got, size, _ = decode(file, target(40, 30))
    assert size == (400, 300) and np.asarray(got)[15, 39, 0] > 240
    assert decoded(photo(100, 100), "PNG", target(13, 7)).shape == (7, 13, 3)
    assert decoded(photo(1, 300), "PNG", target(5, 9, "pad")).shape == (9, 5, 3)
    assert np.array_equal(decoded(Image.fromarray(COLOUR), "PNG", target(6, 6)), COLOUR[:, 1:7])
    assert to_bytes(Image.fromarray(GRAY), 3) == np.repeat(GRAY[..., None], 3, 2).tobytes()
    assert to_bytes(Image.fromarray(GRAY), 4)[:4] == bytes([GRAY[0, 0]] * 3 + [255])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_reported(format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (99, 99, 3), np.uint8))
    data = encoded(noise, format).getvalue()
    with pytest.raises(UnusableError, match=r"^truncated$"):
        decode(io.BytesIO(data[: len(data) // 2]), target())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_files_raise_unusable_error_only(format: str) -> None:
    data = encoded(Image.fromarray(COLOUR), format).getvalue()
    reasons = 0
    rng = np.random.default_rng(2)
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 5):
            broken[at] = rng.integers(0, 256)
        try:
            decode(io.BytesIO(bytes(broken)), target())
        except UnusableError:
            reasons += 1
    assert reasons > 5


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_over_100_million_pixels() -> None:
    for size in (10_001, 20_000):
        with pytest.raises(UnusableError, match="over 100 million pixels"):
            decode(io.BytesIO(huge_png(size, size)), target())


@pytest.mark.parametrize("format", ["ICO", "TGA", "PCX"])
def test_other_formats_are_refused_by_content(format: str) -> None:
    with pytest.raises(UnusableError, match="not in a supported format"):
        decoded(Image.fromarray(COLOUR), format)


def test_a_worker_needs_neither_torch_nor_numpy() -> None:
    heavy = "{'torch', 'numpy', 'pydantic'}"
    code = f"import sys, vaekit.data.decoding.worker; print({heavy} & set(sys.modules) or '')"
    root = Path(__file__).parents[3] / "src"
    command, env = [sys.executable, "-c", code], {"PYTHONPATH": str(root)}
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert process.stdout.strip() == ""
