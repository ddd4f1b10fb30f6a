"""Readers of images as values: PNG, PPM and TIFF files of 16 bits, TIFF files of floats or of many bands,
NumPy arrays, DICOM and NIfTI."""

import gzip
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaekit.data.decoding.files import MAX_PIXELS, UnusableError
from vaekit.data.decoding.values import Values

MAX_CHANNELS = 64


def read_values(file: BinaryIO, kind: str, page: int = 0, image: Image.Image | None = None) -> Values:
    """The values of an image of the format `kind`; `image` is what Pillow has opened of it, if it could."""
    file.seek(0)
    if kind == "TIFF":
        return _read_tiff(file, page)
    if kind == "PNG" and image is not None and image.mode in ("RGB", "RGBA", "LA"):
        return _read_png(file)
    if kind == "PPM" and image is not None and image.mode == "RGB":
        return _read_ppm(file, image)
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


def _read_ppm(file: BinaryIO, image: Any) -> Values:
    """A binary PPM file of colours of 16 bits, which Pillow cuts to 8."""
    tile = image.tile[0]
    width, height = image.size
    _require_size(height, width)
    file.seek(tile.offset)
    data = file.read(6 * width * height)
    if len(data) < 6 * width * height:
        raise UnusableError("truncated")
    array = np.frombuffer(data, ">u2").astype(np.uint16).reshape(height, width, 3)
    return Values(array, float(tile.args[1]))


def _read_tiff(file: BinaryIO, page: int) -> Values:
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        image: Any = tiff.pages[page]
        _require_size(image.imagewidth, image.imagelength)
        array = image.asarray()
        if image.photometric == PALETTE:
            raise UnusableError("with a palette of more than 8 bits")
        if image.photometric in OTHER_COLOURS:
            name = OTHER_COLOURS[image.photometric]
            raise UnusableError(f"{name} of more than 8 bits (convert it to RGB)")
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
        if alpha and known and extra[-1] == MULTIPLIED:
            array = _divided(array)
        if GDAL_NODATA in image.tags:
            array = _without_data(array, str(image.tags[GDAL_NODATA].value))
        return Values(array, white, alpha and known, bands=not known)


def _divided(array: NDArray[Any]) -> NDArray[Any]:
    """Colours that are multiplied by opacity as they were before."""
    full = float(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else 1.0
    opacity = array[..., -1:].astype(np.float64)
    colours = np.minimum(array[..., :-1] * (full / np.maximum(opacity, 1e-12)), full)
    divided: NDArray[Any] = np.concatenate([np.where(opacity > 0, colours, 0), opacity], 2)
    return divided.astype(array.dtype)


def _without_data(array: NDArray[Any], text: str) -> NDArray[Any]:
    """An image with NaN where it has the value that stands for no data."""
    try:
        value = float(text.strip("\0 "))
    except ValueError:
        return array
    missing = array == value
    without: NDArray[Any] = np.where(missing, np.nan, array.astype(np.float64))
    return without if missing.any() else array


PALETTE, WHITE_IS_ZERO, RGB = 3, 0, 2
"""Photometric interpretations of TIFF."""
OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "CIELAB", 10: "CIELAB"}
"""Those of colours that are read with 8 bits only."""
GDAL_NODATA = 42113
"""Tag of the value that stands for no data."""
SEPARATE, MULTIPLIED, OPACITY = 2, 1, (1, 2)
"""Planar configuration with a plane for every band; extra samples that are opacity, of which the first has
multiplied the colours."""


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
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    except ImportError:
        raise UnusableError("DICOM (pip install 'vaekit[medical]' to read it)") from None
    dataset = pydicom.dcmread(file)
    _require_size(int(dataset.Rows), int(dataset.Columns))
    array = dataset.pixel_array
    samples = int(dataset.get("SamplesPerPixel", 1))
    frames = array if array.ndim == 3 + (samples > 1) else array[None]
    image, kind = frames[page], dataset.get("PhotometricInterpretation")
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(image, dataset)
        return Values((colours >> 8).astype(np.uint8) if colours.dtype == np.uint16 else colours, 255.0)
    if kind == "MONOCHROME1":  # its lowest value is white
        image = image.dtype.type(-1) - image if image.dtype.kind == "i" else _inverted(image, dataset)
    if samples == 1:
        image = np.asarray(apply_modality_lut(image, dataset))
    return Values(_channels_last(image), 255.0 if image.dtype == np.uint8 else 0.0)


def _inverted(image: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """Stored values of MONOCHROME1 as those of MONOCHROME2 of as many bits."""
    inverted: NDArray[Any] = (2 ** int(dataset.BitsStored) - 1 - image.astype(np.int64)).clip(min=0)
    return inverted.astype(image.dtype)


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
