"""The run folder: its paths, its lock, its metrics. Every file of a run is named here."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.errors import UserError
from vaekit.files import require_outside, write_text

FORMAT = 1
"""Version of the run folder's layout, written into config.json."""

RECORD = {"preset", "config", "shape", "classes", "source", "device", "threads", "versions"}
"""What a reader of config.json counts on."""


@dataclass(frozen=True)
class Run:
    """Where the parts of a run lie."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def loss_graph(self) -> Path:
        return self.folder / "loss.png"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def latent_prior(self) -> Path:
        return self.folder / "latent_prior.safetensors"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def nearest(self) -> Path:
        return self.folder / "nearest.png"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def samples(self, epoch: int) -> Path:
        return self.folder / "samples" / f"epoch_{epoch:04d}.png"

    def reconstructions(self, epoch: int) -> Path:
        return self.folder / "reconstructions" / f"epoch_{epoch:04d}.png"

    def exists(self) -> bool:
        return self.config.exists()


def first_free(parent: Path, name: str, *suffixes: str) -> Path:
    """parent/name-1, or the first number that no folder has; with suffixes, a file of the first of them whose number
    is free in all of them."""
    number = 1
    while any((parent / f"{name}-{number}{suffix}").exists() for suffix in suffixes or ("",)):
        number += 1
    return parent / f"{name}-{number}{suffixes[0] if suffixes else ''}"


def new_file(run: Run | None, out: str | Path, suffixes: Sequence[str], data: object = None, *, also: str = "") -> Path:
    """The path of a file that may be written: new, of a known kind, and not among the user's images.

    Args:
        run: the run, if it is one's; its training images are left alone.
        out: where to write.
        suffixes: kinds of file that can be written there.
        data: images that are read for it; where they are a folder it is left alone.
        also: suffix of a second file that is written beside it.

    Raises:
        UserError: what stands against it.
    """
    path = Path(out).expanduser()
    if path.suffix.lower() not in suffixes:
        which = "one of these endings" if len(suffixes) > 1 else "that ending"
        raise UserError(f"--out {out} is no name of a {_either(suffixes)} file: give it {which}.")
    for source in (data, read_config(run)["source"] if run else None):
        require_outside(path, source)
    for file in (path, path.with_suffix(also)) if also else (path,):
        if file.exists():
            raise UserError(f"{file} is there already and stays as it is: name a new file with --out.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another file with --out.") from None
    return path


def new_folder(run: Run, out: str | Path) -> Path:
    """The path of a folder that may be filled: new or empty, and not among the images that trained the run.

    Raises:
        UserError: what stands against it.
    """
    path = Path(out).expanduser()
    require_outside(path, read_config(run)["source"])
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there already and stays as it is: name a new folder with --out.")
    return path


def require_writable(run: Run) -> None:
    """Refuse to begin what ends by writing into a run that cannot be written to.

    Raises:
        UserError: it is read-only.
    """
    if not os.access(run.folder, os.W_OK):
        raise UserError(f"{run.folder} cannot be written to: copy the run to a folder of yours first.")


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold the run folder for this process; it is free again when the process ends, however it ends.

    Raises:
        UserError: another process holds it.
    """
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        handle = (run.folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{run.folder} cannot be written ({error.strerror}): name another folder with --out.") from None
    with handle as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"The run {run.folder} is in use by another process: wait for it, or name another with --out."
                ) from None
        yield


def read_config(run: Run) -> dict[str, Any]:
    """config.json as it was written.

    Raises:
        UserError: no run there, or one of a format this version does not know.
    """
    if not run.config.is_file():
        raise UserError(f"There is no run in {run.folder} (no config.json): name the folder that `vaekit train` wrote.")
    try:
        record = json.loads(run.config.read_text(encoding="utf-8"))
        known = record["format"] == FORMAT
        if not record.keys() >= RECORD:
            raise KeyError
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{run.config} is damaged: restore it from a copy, or train anew.") from None
    if not known:
        raise UserError(
            f"{run.config} has format {record['format']}, this vaekit reads format {FORMAT}: upgrade vaekit."
        )
    return dict(record)


def read_dataset(run: Run) -> dict[str, Any]:
    """dataset.json as it was written.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        record = json.loads(run.dataset.read_text(encoding="utf-8"))
        if not record.keys() >= {"fingerprint", "source", "images", "width", "height", "splits", "skipped"}:
            raise KeyError
    except (OSError, ValueError, KeyError, AttributeError):
        raise UserError(f"{run.dataset} is missing or damaged: restore it from a copy, or train anew.") from None
    return dict(record)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=2) + "\n")


# --- metrics.csv -----------------------------------------------------------------------------------------------------

Row = dict[str, float]


def read_metrics(run: Run) -> list[Row]:
    """The rows of metrics.csv; a last line that a crash cut short is left out.

    Raises:
        UserError: it is damaged.
    """
    if not run.metrics.exists():
        return []
    with run.metrics.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    try:
        return [
            {name: float(cell or "nan") for name, cell in zip(header, row, strict=True)}
            for row in rows
            if len(row) == len(header)
        ]
    except ValueError:
        raise UserError(f"{run.metrics} is damaged: restore it from a copy, or delete it.") from None


def append_metrics(run: Run, row: Row) -> None:
    """One epoch's row, with the header before the first."""
    new = not run.metrics.exists()
    with run.metrics.open("a", newline="", encoding="utf-8") as file:
        file.write((_line(row.keys()) if new else "") + _line(_cell(value) for value in row.values()))


def keep_metrics(run: Run, rows: list[Row]) -> None:
    """Replace metrics.csv by `rows`: what a resumed run goes on from."""
    if rows:
        write_text(run.metrics, _line(rows[0]) + "".join(_line(map(_cell, row.values())) for row in rows))
    else:
        run.metrics.unlink(missing_ok=True)


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: float) -> str:
    """A number as it reads back; nothing for one that does not exist, such as the KL of a posterior without noise."""
    if math.isnan(value):
        return ""
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(float(value))
