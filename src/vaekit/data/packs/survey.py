"""A look at all image files before they are decoded: which size, range and background suit the set."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from vaekit.config.data import DataConfig
from vaekit.data.decoding.pool import Job, run_workers
from vaekit.data.decoding.survey import GROUNDS, Inspection, Probe
from vaekit.data.decoding.values import OF_THE_SET, ValueRange, choose_range
from vaekit.data.packs.reading import Reading
from vaekit.data.sources.files import ImageFiles
from vaekit.errors import setting
from vaekit.utils.logging import progress

MAX_UNRESIZED_SIDE = 128
"""Images that all have the same size are not resized up to this many pixels per length."""
DEFAULT_SIDE = 64
"""Other images are resized to squares of at most this many pixels per length."""
TRANSPARENT_SAMPLE = 200
"""Transparent images that the background is chosen by, at most."""
GROUND_NAMES = ("white", "black", "#808080", "#87ceeb")
"""Names of `GROUNDS`."""
FAR = 0.5
"""A value is far from all others if it is farther than this share of the range of the set."""
NO_DATA = "may be an outlier or stand for no data"
MOST_HIDDEN = 0.1
"""Share of transparent images that cannot be seen on white from which on another background is chosen."""
Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Survey:
    """How the images of a set are to be decoded."""

    images: list[tuple[str, int]]
    """(path, page) of each image."""
    files: list[int]
    """The number of the file of each image."""
    size: tuple[int, int]
    """Width and height in pixels."""
    size_note: str
    bands: int
    """Number of channels if they are neither gray values nor colours, else 0."""
    limits: Limits
    """The values that become black and white, of images of more than 8 bits."""
    level_limits: Limits
    """The same of images of 8 bits."""
    background: str
    notes: list[str]


def survey(files: ImageFiles, settings: DataConfig, quiet: bool, reading: Reading | None = None) -> Survey:
    """Look at the headers of all files, and at the pixels of those of which these do not say enough.

    Nothing is said of what is known by `reading`.
    """
    probes: list[Probe | None] = [None] * len(files.paths)
    with progress(len(probes), f"Scanning {len(probes):,} images", quiet=quiet) as advance:
        for row, answer in run_workers(Job(str(files.root), "probe"), [(path, 0) for path in files.paths]):
            if answer and not isinstance(answer, str):
                probes[row] = Probe(*answer)
            advance(1)
    notes: list[str] = []
    rows, images = _pages(files, probes, settings, notes)
    value_notes: list[str] = []
    limits, level_limits, bands = _values(files, rows, images, probes, settings, value_notes, quiet)
    if reading is None or reading.limits is None:
        notes += value_notes
    background = "white" if reading else _background(files, probes, settings, notes, quiet)
    size, size_note = _choose_size([probe for probe in probes if probe], settings)
    return Survey(images, rows, size, size_note, bands, limits, level_limits, background, notes)


def _pages(
    files: ImageFiles, probes: list[Probe | None], settings: DataConfig, notes: list[str]
) -> tuple[list[int], list[tuple[str, int]]]:
    """The file and (path, page) of each image to read, by the setting `pages`."""
    rows, images = [], []
    several = [probe.pages for probe in probes if probe and probe.pages > 1]
    for row, (path, probe) in enumerate(zip(files.paths, probes, strict=True)):
        count = probe.pages if probe else 1
        if settings.pages == "all":
            taken = list(range(count))
        elif settings.pages == "middle":
            taken = [count // 2]
        else:
            taken = [0 if settings.pages == "first" else min(int(settings.pages), count) - 1]
        rows += [row] * len(taken)
        images += [(path, page) for page in taken]
    if several:
        what = {"first": "the first", "middle": "the middle one", "all": "every one"}
        taken_text = what.get(settings.pages, f"number {settings.pages}")
        count_text = "1 file has" if len(several) == 1 else f"{len(several):,} files have"
        others = " or ".join(setting("pages", name) for name in ("all", "middle") if name != settings.pages)
        notes.append(
            f"{count_text} up to {max(several):,} pages or frames, of which {taken_text} is read. "
            f"Others: {others}."
        )
    return rows, images


# --- Values -------------------------------------------------------------------------------------------------


def _values(
    files: ImageFiles,
    rows: list[int],
    images: list[tuple[str, int]],
    probes: list[Probe | None],
    settings: DataConfig,
    notes: list[str],
    quiet: bool,
) -> tuple[Limits, Limits, int]:
    """The limits of images of more than 8 bits, those of others, and the number of bands or 0."""
    deep = [number for number, row in enumerate(rows) if (probe := probes[row]) and probe.values]
    levels: list[int] = []
    if settings.range == "auto-set":
        levels = sorted(set(range(len(images))) - set(deep))
    inspected = _inspect(files, [images[number] for number in [*deep, *levels]], settings, quiet)
    of_deep = [one for one in inspected[: len(deep)] if one]
    of_levels = [one for one in inspected[len(deep) :] if one]
    bands = _common_bands(of_deep, others=len(images) - len(deep))
    if settings.band_numbers:
        bands = len(settings.band_numbers) if len(settings.band_numbers) not in (1, 3) else 0
    elif bands:
        some = "1,2,3" if bands > 2 else "1"
        notes.append(f"All {bands} bands are read. To read only some: {setting('bands', some)}.")
    if settings.limits:
        if of_deep and len(deep) < len(images):
            others = len(images) - len(deep)
            text = "1 image of 8 bits is" if others == 1 else f"{others:,} images of 8 bits are"
            notes.append(f"{text} read by {setting('range', settings.range)} too.")
        return settings.limits, settings.limits, bands
    level_limits: Limits = None
    if of_levels:
        low, high = min(one.low for one in of_levels), max(one.high for one in of_levels)
        level_limits = low, max(high, low + 1)
        notes.append(f"Levels from {low:g} to {high:g} are read as black to white.")
    if not of_deep:
        return None, level_limits, bands
    low, high = min(one.low for one in of_deep), max(one.high for one in of_deep)
    *limits, why = choose_range([ValueRange(*one[:6]) for one in of_deep])
    if settings.range == "auto-set":
        limits, why = [low, max(high, low + 1e-6)], OF_THE_SET
    images_text = "1 image has" if len(of_deep) == 1 else f"{len(of_deep):,} images have"
    clipped = "; values outside are clipped" if low < limits[0] or high > limits[1] else ""
    notes.append(
        f"{images_text} values from {low:,.6g} to {high:,.6g}: {limits[0]:,.6g} is read as black and "
        f"{limits[1]:,.6g} as white ({why}{clipped}). To change that: {setting('range', 'LOW:HIGH')}."
    )
    notes += _far_value_notes(of_deep, low, high)
    return (limits[0], limits[1]), level_limits, bands


def _far_value_notes(images: list[Inspection], low: float, high: float) -> list[str]:
    """That the lowest or the highest value of the set is far from all others, with a range without it."""
    above = min(one.second_low if one.low == low else one.low for one in images)
    below = max(one.second_high if one.high == high else one.high for one in images)
    far_low, far_high = above - low > FAR * (high - low), high - below > FAR * (high - low)
    if not (far_low or far_high) or above >= below:
        return []
    which, value = ("lowest", low) if far_low else ("highest", high)
    rest = (above, high) if far_low else (low, below)
    text = f"The {which} value, {value:,.6g}, is far from the others, {rest[0]:,.6g} to {rest[1]:,.6g}, and "
    advice = f"For a range without it: {setting('range', f'{rest[0]:.6g}:{rest[1]:.6g}')}."
    return [f"{text}{NO_DATA}. {advice}"]


def _inspect(
    files: ImageFiles, images: list[tuple[str, int]], settings: DataConfig, quiet: bool
) -> list[Inspection | None]:
    """The values of images, or None where they cannot be read."""
    inspected: list[Inspection | None] = [None] * len(images)
    if not images:
        return inspected
    job = Job(str(files.root), "inspect", bands=settings.band_numbers)
    with progress(len(images), "Reading the range of values", quiet=quiet) as advance:
        for row, answer in run_workers(job, images):
            inspected[row] = None if isinstance(answer, str) else Inspection(*answer)
            advance(1)
    return inspected


def _common_bands(inspected: list[Inspection], others: int) -> int:
    """The number of bands that most images have; 0 if most are gray or in colour, as `others` are."""
    counts = Counter(one.channels if one.bands else 0 for one in inspected)
    counts[0] += others
    return counts.most_common(1)[0][0] if counts else 0


# --- Background and size ------------------------------------------------------------------------------------


def _background(
    files: ImageFiles, probes: list[Probe | None], settings: DataConfig, notes: list[str], quiet: bool
) -> str:
    """The background of transparent images: as it is set, or the first one on which most can be seen."""
    rows = [row for row, probe in enumerate(probes) if probe and probe.transparent]
    if settings.background != "auto" or settings.alpha == "keep" or not rows:
        return "white" if settings.background == "auto" else settings.background
    count = min(len(rows), TRANSPARENT_SAMPLE)
    sample = [(files.paths[rows[index * len(rows) // count]], 0) for index in range(count)]
    hidden, nowhere = np.zeros(len(GROUNDS), np.int64), 0
    with progress(count, "Reading transparent images", quiet=quiet) as advance:
        for _, answer in run_workers(Job(str(files.root), "visible"), sample):
            if not isinstance(answer, str):
                hidden += ~np.array(answer, np.bool_)
                nowhere += not any(answer)
            advance(1)
    best = int(hidden.argmin()) if hidden[0] - nowhere > MOST_HIDDEN * count else 0
    unseen = f"{hidden[0]:,} of {count:,} transparent images cannot be seen on white"
    if best:
        still = int(hidden[best]) - nowhere
        hides = f", which hides {still:,}" if still else ""
        text = f"{unseen}, so the background is {GROUND_NAMES[best]}{hides}."
        notes.append(f"{text} To change that: {setting('background', 'white')}.")
    elif hidden[0] > nowhere:
        other = GROUND_NAMES[int(hidden[1:].argmin()) + 1]
        notes.append(f"{unseen}. To change that: {setting('background', other)}.")
    if nowhere:
        images = "1 image is" if nowhere == 1 else f"{nowhere:,} images are"
        some = "" if count == len(rows) else f" of {count:,} looked at"
        notes.append(f"{images}{some} transparent everywhere, or so faint that nothing can be seen.")
    return GROUND_NAMES[best]


def _choose_size(probes: list[Probe], settings: DataConfig) -> tuple[tuple[int, int], str]:
    """Width and height of the images, and a note on it."""
    fit = {"crop": "centre-cropped", "pad": "padded", "stretch": "stretched"}[settings.fit]
    if settings.width_height is not None:
        width, height = settings.width_height
        return (width, height), f"resized to {width}x{height} and {fit}"
    if not probes:
        return (DEFAULT_SIDE, DEFAULT_SIDE), ""
    sizes = np.array([(probe.width, probe.height) for probe in probes])
    width, height = sizes.max(0).tolist()
    few_pixels = width * height <= DEFAULT_SIDE**2 or max(width, height) <= MAX_UNRESIZED_SIDE
    if (sizes == sizes[0]).all() and few_pixels:
        return (width, height), f"{width}x{height} (not resized)"
    length = max(1, min(DEFAULT_SIDE, int(np.median(sizes.min(1)))))
    size_note = f"resized to {length}x{length} and {fit} (originals up to {width}x{height}). "
    return (length, length), size_note + f"Change with {setting('size')} and {setting('fit')}."
