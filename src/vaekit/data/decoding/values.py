"""Images whose values do not fit in 8 bits, or that have other channels than colours: as arrays.

These are 16-bit PNG and TIFF files, TIFF files of floats or of many bands, NumPy arrays, DICOM and NIfTI.
Their values become 256 levels by one range for all images of a data set, never image by image.
"""

import gzip
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.data.decoding.files import MAX_PIXELS, UnusableError

MAX_CHANNELS = 64
OF_THE_SET = "the lowest to the highest value of the set"
NOT_FINITE = "values that are NaN or infinite, read as black"
"""What is said of an image with some of them."""
NEARLY = 0.05
"""Decimal values are taken for values from 0 to 1 if they exceed it by no more than this."""


class Values(NamedTuple):
    """The values of an image, in its own units."""

    array: NDArray[Any]
    """[H, W, C], integers or floats."""
    white: float = 0
    """The value that the file declares to be white, or the highest that its type can hold; 0 if unknown."""
    alpha: bool = False
    """Whether the last channel is opacity."""
    bands: bool = False
    """Whether the channels are neither gray values nor red, green and blue."""

    @property
    def is_8_bit(self) -> bool:
        return self.array.dtype == np.uint8


class ValueRange(NamedTuple):
    """What the survey of a data set notes of one image."""

    low: float
    high: float
    white: float
    decimal: bool


def is_finite(values: Values) -> bool:
    """Whether no value is NaN or infinite."""
    return values.array.dtype.kind != "f" or bool(np.isfinite(values.array).all())


def range_of(values: Values) -> ValueRange:
    """The lowest and the highest finite value of an image; UnusableError if there is none."""
    array = values.array[..., :-1] if values.alpha else values.array
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
        if not array.size:
            raise UnusableError("without a finite value")
    return ValueRange(float(array.min()), float(array.max()), values.white, array.dtype.kind == "f")


def to_levels(values: Values, limits: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Map values linearly to the levels 0 to 255, from `limits` (low, high), by default by their bits.

    Values outside are clipped, and those that are not finite become 0, as those of no data in TIFF files.
    Opacity is scaled by its type.

    Raises:
        UnusableError: no value is finite, or `limits` are needed and not given.
    """
    array = values.array
    present = range_of(values)
    low, high, why = (*limits, "") if limits else choose_range([present])
    if why == OF_THE_SET:
        raise UnusableError(f"with values from {present.low:g} to {present.high:g}, whose range is not known")
    opacity = array[..., -1:] if values.alpha else None
    colours = array[..., :-1] if values.alpha else array
    finite = np.where(np.isfinite(colours), colours, low).astype(np.float64)
    scaled = np.clip((finite - low) * (255 / max(high - low, 1e-12)), 0, 255)
    levels = np.rint(scaled).astype(np.uint8)
    if opacity is None:
        return levels
    full = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1.0
    return np.concatenate([levels, np.rint(opacity * (255.0 / full)).astype(np.uint8)], axis=2)


def choose_range(images: list[ValueRange]) -> tuple[float, float, str]:
    """The values that become black and white, for all images of a data set, and why.

    - Decimal values within 0.05 of 0 to 1 are read as 0 to 1, and others from 128 to 255 at most as 0 to 255.
    - Integers that are not negative are read by the bits that they need, up to 4,080 as 12 bits, 0 to 4,095;
      or by those that all files declare.
    - Anything else is read from the lowest to the highest value of the set.
    """
    low, high = min(image.low for image in images), max(image.high for image in images)
    declared = {image.white for image in images}
    if any(image.decimal for image in images):
        if low >= -NEARLY and high <= 1 + NEARLY:
            return 0.0, 1.0, "decimal values, read as 0 to 1"
        if low >= 0 and 128 <= high <= 255:
            return 0.0, 255.0, "decimal values of 8 bits"
    elif low >= 0 and high < 2**16:
        if len(declared) == 1 and 0 < (white := declared.pop()) < 2**16 - 1:
            return 0.0, white, f"{round(white + 1).bit_length() - 1} bits, as the files say"
        bits = max(8, int(high).bit_length())
        return 0.0, float(2**bits - 1), f"{bits} bits"
    return low, max(high, low + 1e-6), OF_THE_SET


# --- Readers ------------------------------------------------------------------------------------------------


def read_values(file: BinaryIO, kind: str, page: int = 0, image: Image.Image | None = None) -> Values:
    """The values of an image of the format `kind`; `image` is what Pillow has opened of it, if it could."""
    file.seek(0)
    if kind == "TIFF":
        return _read_tiff(file, page)
    if kind == "PNG" and image is not None and image.mode in ("RGB", "RGBA", "LA"):
        return _read_png(file)
    if kind in READERS:
        return READERS[kind](file, page)
    if image is None:
        raise UnusableError("not in a supported format")
    return _read_gray(image)


def _read_gray(image: Image.Image) -> Values:
    """Gray values that Pillow reads as they are; one of them may be transparent."""
    array = np.asarray(image)[..., None]
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        full = np.iinfo(array.dtype).max
        array = np.concatenate([array, np.where(array == transparent, 0, full).astype(array.dtype)], 2)
        return Values(array, alpha=True)
    return Values(array)


def _read_png(file: BinaryIO) -> Values:
    """A PNG file of colours of 16 bits, which Pillow cuts to 8."""
    from imagecodecs import png_decode

    array = _channels_last(png_decode(file.read()))
    return Values(array, alpha=array.shape[2] in (2, 4))


def _read_tiff(file: BinaryIO, page: int) -> Values:
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        image: Any = tiff.pages[page]
        _require_size(image.imagewidth, image.imagelength)
        array = image.asarray()
        if image.photometric == PALETTE:
            raise UnusableError("with a palette of more than 8 bits")
        separate = image.planarconfig == SEPARATE and array.ndim == 3
        array = _channels_last(np.moveaxis(array, 0, -1) if separate else array)
        bits, channels = int(image.bitspersample), array.shape[2]
        white = float(2**bits - 1) if array.dtype.kind == "u" and bits < 16 else 0.0
        if image.photometric == WHITE_IS_ZERO and array.dtype.kind == "u":
            highest = int(white) or np.iinfo(array.dtype).max
            array = (highest - array.astype(np.int64)).astype(array.dtype)
        extra = tuple(image.extrasamples or ())
        alpha = channels in (2, 4) and bool(extra) and extra[-1] in OPACITY
        colours = channels - alpha
        known = colours == 1 or (colours == 3 and image.photometric == RGB)
        return Values(array, white, alpha and known, bands=not known)


PALETTE, WHITE_IS_ZERO, RGB = 3, 0, 2
"""Photometric interpretations of TIFF."""
SEPARATE, OPACITY = 2, (1, 2)
"""Planar configuration with a plane for every band; extra samples that are opacity."""


def _read_numpy(file: BinaryIO, page: int) -> Values:
    """An image in a .npy file: [H, W], [H, W, C], or with 1, 3 or 4 channels also [C, H, W]."""
    try:
        array = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise UnusableError("an array of objects" if "pickle" in str(error) else "truncated") from None
    if array.dtype.kind not in "iufb":
        raise UnusableError(f"an array of {array.dtype} values")
    array = array.astype(np.uint8) * 255 if array.dtype.kind == "b" else array
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    bands = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or 0 in array.shape or (bands > 4 and bands >= min(array.shape[:2])):
        raise UnusableError(f"an array of shape {' x '.join(map(str, array.shape))} instead of one image")
    _require_size(*array.shape[:2])
    array = _channels_last(array)
    return Values(array, 255.0 if array.dtype == np.uint8 else 0.0, bands=array.shape[2] not in (1, 3))


def _read_dicom(file: BinaryIO, page: int) -> Values:
    """A frame of a DICOM file, in its units: in computed tomography Hounsfield units."""
    try:
        import pydicom
        from pydicom.pixels.processing import apply_modality_lut
    except ImportError:
        raise UnusableError("DICOM (pip install 'vaekit[medical]' to read it)") from None
    dataset = pydicom.dcmread(file)
    _require_size(int(dataset.Rows), int(dataset.Columns))
    array = dataset.pixel_array
    samples = int(dataset.get("SamplesPerPixel", 1))
    frames = array if array.ndim == 3 + (samples > 1) else array[None]
    image = np.asarray(apply_modality_lut(frames[page], dataset)) if samples == 1 else frames[page]
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":  # its lowest value is white
        image = -image.astype(np.float64)
    return Values(_channels_last(image), 255.0 if image.dtype == np.uint8 else 0.0)


def _read_nifti(file: BinaryIO, page: int) -> Values:
    """A slice of a NIfTI volume, across its third axis."""
    try:
        import nibabel
    except ImportError:
        raise UnusableError("NIfTI (pip install 'vaekit[medical]' to read it)") from None
    volume: Any = nibabel.Nifti1Image.from_stream(_unpacked(file))
    if len(volume.shape) < 2:
        raise UnusableError(f"a volume of shape {' x '.join(map(str, volume.shape))}")
    _require_size(*volume.shape[:2])
    data = np.asarray(volume.dataobj)
    plane = data.reshape(*data.shape[:2], -1)[..., page]
    return Values(_channels_last(np.rot90(plane)))


def count_pages(file: BinaryIO, kind: str) -> int:
    """Pages of a TIFF file, frames of a DICOM file, slices of a volume; 1 of other files."""
    file.seek(0)
    if kind == "TIFF":
        from tifffile import TiffFile

        with TiffFile(file) as tiff:
            return len(tiff.pages)
    if kind == "DICOM":
        import pydicom

        return int(pydicom.dcmread(file, stop_before_pixels=True).get("NumberOfFrames", 1) or 1)
    if kind == "NIFTI":
        import nibabel

        header: Any = nibabel.Nifti1Header.from_fileobj(_unpacked(file))
        return int(np.prod(header.get_data_shape()[2:], dtype=np.int64))
    return 1


READERS = {"NPY": _read_numpy, "DICOM": _read_dicom, "NIFTI": _read_nifti}


def _unpacked(file: BinaryIO) -> Any:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if packed else file


def _require_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise UnusableError("over 100 million pixels")


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise UnusableError(f"an image of {array.ndim} axes")
    if array.shape[2] > MAX_CHANNELS:
        raise UnusableError(f"with {array.shape[2]} channels; at most {MAX_CHANNELS} are read")
    return array
