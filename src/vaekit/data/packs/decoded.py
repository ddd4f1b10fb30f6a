"""The images of a source after decoding."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaekit.data.sources.conditions import Conditions
from vaekit.data.sources.pixels import Pixels

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class DecodedSource:
    """The images of a source after decoding, before they are assigned to splits."""

    path: Callable[[int], str]
    labels: NDArray[np.int64]
    """[N], -1 without classes."""
    classes: tuple[str, ...]
    splits: NDArray[np.int8]
    """[N], the split of each image in its source."""
    content: NDArray[np.uint64]
    """[N], digests of the images' contents."""
    sizes: NDArray[np.int32]
    """[N, 2], original widths and heights in pixels."""
    shape: tuple[int, int, int]
    """H, W, C of the pack."""
    read: Callable[[NDArray[np.intp]], Pixels]
    """The images [n, H, W, C] of the given rows."""
    size_note: str
    """A phrase that describes the size of the images and how they were resized."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    other_files: int = 0
    notes: list[str] = field(default_factory=list)
    """What the source was taken for, where it could mean something else: a sentence each."""
    reading: dict[str, Any] = field(default_factory=dict)
    """How values became levels, see `Reading`."""
    white: float = 255.0
    """The value that level 255 stands for, unless `reading` says otherwise."""
    drop_copies: bool = False
    """Whether one of several equal images is kept."""
    links: NDArray[np.bool_] | None = None
    """[N], whether each image is read through a link; of equal images others are kept."""
    bands: bool = False
    """Whether the channels are neither gray values nor colours."""
    conditions: Conditions | None = None
    """Those of each image, instead of classes."""
