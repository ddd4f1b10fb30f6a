"""Decoding of image files, in parallel processes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vaekit.config.data import DataConfig
from vaekit.data.decoding.pool import Job, run_workers
from vaekit.data.packs.decoded import DecodedSource, Labels
from vaekit.data.packs.reading import Reading, decode_spec
from vaekit.data.packs.survey import survey
from vaekit.data.packs.write import require_pack_space
from vaekit.data.sources.files import ImageFiles
from vaekit.data.sources.layout import NO_CLASS
from vaekit.utils.files import natural_sort_key
from vaekit.utils.logging import progress


def decode_files(
    files: ImageFiles, settings: DataConfig, staging: Path, quiet: bool, reading: Reading | None
) -> DecodedSource:
    """Decode files into the file `staging`, in parallel processes."""
    surveyed = survey(files, settings, quiet, reading)
    reading = reading or Reading(surveyed.limits, surveyed.level_limits, surveyed.background)
    if reading.limits is None and surveyed.limits:  # of a model of 8-bit images: still one range for all
        reading = replace(reading, limits=surveyed.limits)
    width, height = surveyed.size
    target = decode_spec(settings, width, height, reading)
    count = len(surveyed.images)
    channels = surveyed.bands or (4 if target.keep_alpha else 3)  # gray images are known once all are decoded
    require_pack_space(staging.parent, count, 2 * height * width * channels)
    with staging.open("wb") as file:
        file.truncate(count * height * width * channels)
    sizes, content = np.zeros((count, 2), np.int32), np.zeros(count, np.uint64)
    used = np.zeros(count, np.int64)
    skipped, remarks = list(files.skipped), list[tuple[str, str]]()
    names = [_image_name(path, page, settings.pages) for path, page in surveyed.images]
    job = Job(str(files.root), "decode", str(staging), target, channels)
    with progress(count, "Reading images", quiet=quiet) as advance:
        for index, answer in run_workers(job, surveyed.images):
            if isinstance(answer, str):
                skipped.append((names[index], answer))
            else:
                *sizes[index], used[index], content[index], remark = answer
                if remark:
                    remarks.append((names[index], remark))
            advance(1)
    decoded = np.flatnonzero(used)
    file_rows = np.array(surveyed.files, np.int64)[decoded]
    labels, classes = _number_classes([files.classes[row] for row in file_rows])
    out_channels = 1 if (used[decoded] == 1).all() else channels
    if not surveyed.bands and out_channels == 4 and not (used[decoded] == 4).any():
        out_channels = 3
    staged = np.memmap(staging, np.uint8, "r", shape=(count, height, width, channels)) if count else None
    assert staged is not None
    shown = [names[index] for index in decoded]
    links = (
        [(files.root / surveyed.images[index][0]).is_symlink() for index in decoded]
        if files.root.is_dir()
        else []
    )
    return DecodedSource(
        path=lambda index: shown[index],
        labels=labels,
        classes=classes,
        splits=np.array(files.splits, np.int8)[file_rows],
        content=content[decoded],
        sizes=sizes[decoded],
        shape=(height, width, out_channels),
        read=lambda rows: staged[decoded[rows]][..., :out_channels],
        size_note=surveyed.size_note,
        skipped=sorted(skipped),
        other_files=files.other_files,
        notes=[*files.notes, *surveyed.notes, *_remark_notes(remarks)],
        reading={
            "limits": reading.limits,
            "level_limits": reading.level_limits,
            "background": reading.background,
        },
        drop_copies=settings.copies != "keep",
        links=np.array(links, np.bool_) if links else np.zeros(len(decoded), np.bool_),
        bands=bool(surveyed.bands),
        conditions=None if files.conditions is None else files.conditions.rows(file_rows),
    )


def _image_name(path: str, page: int, pages: str) -> str:
    return f"{path}[{page + 1}]" if pages == "all" and page else path


def _remark_notes(remarks: list[tuple[str, str]]) -> list[str]:
    """What was ignored in files, with an example of each."""
    examples = {remark: path for path, remark in reversed(remarks)}
    counts = Counter(remark for _, remark in remarks)
    return [f"{count:,} x {remark}, e.g. in {examples[remark]}." for remark, count in counts.items()]


def _number_classes(names: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """The number of each image's class, and the classes in natural order; -1 if none has a class."""
    classes = sorted(set(names), key=lambda name: (name == NO_CLASS, natural_sort_key(name)))
    if classes == [NO_CLASS]:
        return np.full(len(names), -1, np.int64), ()
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names], np.int64), tuple(classes)
