"""Building a pack from a source."""

from pathlib import Path

from vaekit.config.data import DataConfig
from vaekit.data.decoding.formats import MEDICAL_SUFFIXES, has_suffix
from vaekit.data.packs.decode_arrays import decode_arrays
from vaekit.data.packs.decode_files import decode_files
from vaekit.data.packs.reading import Reading
from vaekit.data.packs.write import count_reasons, write_pack
from vaekit.data.sources.files import FilesSource
from vaekit.data.sources.find import Source
from vaekit.errors import UserError


def build_pack(
    source: Source, settings: DataConfig, folder: Path, quiet: bool, reading: Reading | None, splitting: bool
) -> None:
    """Read all images of `source` and write their pack into the empty `folder`.

    Args:
        source: where the images come from.
        settings: how they are read.
        folder: an empty folder.
        quiet: show no progress.
        reading: how values are read; None to choose it by the images.
        splitting: cut a validation split from the training images, which needs two different ones.
    """
    staging = folder / "staging"
    if isinstance(source, FilesSource):
        decoded = decode_files(source.read(folder), settings, staging, quiet, reading)
    else:
        decoded = decode_arrays(source, settings, quiet)
    needed = 2 if splitting else 1
    if len(decoded.labels) < needed:
        skipped = decoded.skipped
        skip_note = f" ({len(skipped):,} skipped: {count_reasons(skipped)})" if skipped else ""
        images = "1 usable image" if len(decoded.labels) else "no usable images"
        at_least = "2 are" if splitting else "1 is"
        medical = any(has_suffix(path, MEDICAL_SUFFIXES) for path, _ in skipped)
        hint = "If the files are whole, export their slices as PNG." if medical else ""
        raise UserError(f"'{source.name}' contains {images}{skip_note}; at least {at_least} needed.", hint)
    write_pack(folder, decoded, source.name, settings, splitting)
    staging.unlink(missing_ok=True)
    (folder / "archive.tar").unlink(missing_ok=True)
