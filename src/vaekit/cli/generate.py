"""Images out of a model: `generate`, `reconstruct`, `fit-prior`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from vaekit.cli.common import condition_vector, load_model, output_folder, quoted, say
from vaekit.cli.flags import ImageCondition, Out, RunFolder, Seed
from vaekit.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vaekit.latents.arrays import NewImages
    from vaekit.plots.grids import Images

SHEET_IMAGES = 256
"""The contact sheet of `generate` shows this many images at most."""
SHEET_PAIRS = 64
"""The contact sheet of `reconstruct` shows this many pairs at most."""


def generate(
    run: RunFolder,
    /,
    *,
    n: Annotated[int, Parameter(name=["-n", "--count"])] = 64,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    condition: str | None = None,
    prior: Literal["fitted", "model"] | None = None,
    temperature: float = 1.0,
    steps: int | None = None,
    guidance: float | None = None,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Generate new images (PNG files, a contact sheet, and a table of them).

    Args:
        n: Number of images.
        class_: Generate only this class.
        condition: Conditions of all images, such as age=30,smiling=1; others are at their average (default:
            those of training images in turn).
        prior: Prior to sample from: fitted to the latents (default, if there is one), or the model's own.
        temperature: Sampling temperature; below 1 gives more typical, less varied images.
        steps: Steps of the sampler of flow matching (default 20); more are slower and more accurate.
        guidance: Guidance by groups of similar images or by conditions, for flow matching (default 2 for
            groups, 1 for conditions, which is none); higher gives images that are more typical of them, and
            less varied.
    """
    if not 1 <= n <= 1_000_000:
        raise UserError(f"must be between 1 and 1,000,000 (got {n}).", option="count")
    model = load_model(run)

    from vaekit.latents import arrays
    from vaekit.latents.fit_prior import MIN_VALIDATION_ENCODINGS
    from vaekit.runs.conditions import chosen_label
    from vaekit.runs.metadata import read_dataset_summary

    label = chosen_label(model.loaded, class_, condition_vector(model, condition))
    batches = arrays.generate(
        model.loaded,
        n,
        seed=seed,
        label=label,
        temperature=temperature,
        prior=prior,
        steps=steps,
        guidance=guidance,
        with_density=True,
    )
    labels = arrays.sample_class_names(model.loaded, n, label)
    folder = output_folder(model, out, "generated")
    shown, files, densities = _write_batches(batches, n, labels, folder)
    columns = {"file_name": files, **arrays.sample_columns(model.loaded, n, label), "seed": [str(seed)] * n}
    _write_table(folder / "metadata.csv", columns | ({"log_density": densities} if densities else {}))

    from vaekit.plots import grids

    fitted = None if prior == "model" else model.fitted_prior
    count = f"{n:,}" if n <= SHEET_IMAGES else f"The first {SHEET_IMAGES} of {n:,}"
    of = f" of {class_ or condition}" if class_ or condition else ""
    title = f"{count} new image{'' if n == 1 else 's'}{of}, "
    title += f"{'model' if fitted is None else 'fitted'} prior, seed {seed}"
    sheet = grids.grid(shown, labels=labels[: len(shown)] if labels else None, title=title)
    grids.write(folder / "grid.png", sheet, durable=False)
    if fitted is not None:
        say(f"Sampled from the fitted prior: {fitted.name}.")
    else:
        can_be_fitted = read_dataset_summary(model.run).splits["validation"] >= MIN_VALIDATION_ENCODINGS
        hint = f" `vaekit fit-prior {quoted(run)}` usually gives better images."
        say(f"Sampled from the model's own prior.{hint if prior is None and can_be_fitted else ''}")
    say(f"{_written(n, folder)}. {folder / 'metadata.csv'} lists them.")


def _write_batches(
    batches: "Iterator[NewImages]", n: int, labels: Sequence[str] | None, folder: Path
) -> tuple["Images", list[str], list[str]]:
    """Write images as they come; returns the first, for the contact sheet, the names of all files, and the
    log-densities of their latents, if they are known."""
    import numpy as np

    from vaekit.plots import grids
    from vaekit.utils.files import safe_name
    from vaekit.utils.logging import progress

    shown: list[NDArray[np.uint8]] = []
    files: list[str] = []
    densities: list[str] = []
    with progress(n, "Generating images") as advance:
        for batch in batches:
            for image in batch.images:
                name = f"{len(files) + 1:04d}" + (f"-{safe_name(labels[len(files)])}" if labels else "")
                files.append(f"{name}.png")
                grids.write(folder / files[-1], grids.picture(image), durable=False)
                if len(shown) < SHEET_IMAGES:
                    shown.append(image)
                advance(1)
            if batch.log_density is not None:
                densities += [f"{nats:.4f}" for nats in batch.log_density.tolist()]
    return np.stack(shown), files, densities


def _write_table(path: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write a CSV file."""
    import csv

    from vaekit.utils.files import atomic_file, printable

    rows = zip(*columns.values(), strict=True)
    with (
        atomic_file(path, durable=False) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(map(printable, row) for row in (columns, *rows))


def _written(count: int, folder: Path) -> str:
    return f"Wrote {count:,} image{'s' if count != 1 else ''} and grid.png to {folder}"


def fit_prior(run: RunFolder, /, *, steps: int | None = None) -> None:
    """Fit a sampling prior to the latents; `generate` uses it if it is better than the model's own.

    Args:
        steps: Train the run's flow matching on, to this number of steps in all.
    """
    scores = load_model(run).fit_prior(steps=steps)["nats_per_held_out_image"]
    if len(scores) == 1:  # there was nothing to choose from
        return
    say("Mean log-density of held-out latents, in nats:")
    for name, nats in sorted(scores.items(), key=lambda item: -item[1]):
        say(f"  {nats:10.2f}  {name}")


def reconstruct(
    run: RunFolder,
    /,
    *images: Path,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    condition: ImageCondition = None,
    out: Out = None,
) -> None:
    """Encode and decode image files; shows each input next to its reconstruction.

    Args:
        images: Image files.
        class_: Class of the images (default: the name of their folder).
    """
    if not images:
        raise UserError("Missing image files.", "Usage: vaekit reconstruct RUN IMAGE ...")
    model = load_model(run)

    from vaekit.plots import grids
    from vaekit.plots.labels import file_labels
    from vaekit.runs.conditions import chosen_label, file_conditions
    from vaekit.runs.inputs import class_of_file, read_files
    from vaekit.utils.files import safe_name

    originals = read_files(model.loaded, images)
    labels = chosen_label(model.loaded, class_, condition_vector(model, condition))
    if labels is None and model.loaded.columns:
        labels = file_conditions(model.loaded, images)
    elif labels is None and model.model.classes:
        labels = [class_of_file(model.loaded, path) for path in images]
    reconstructed = model.reconstruct(originals, labels)
    folder = output_folder(model, out, "reconstructed")
    for index, path in enumerate(images):
        pair = grids.grid(originals[[index]], below=[reconstructed[[index]]])
        grids.write(folder / f"{index + 1:04d}-{safe_name(path.stem)}.png", pair, durable=False)
    names = file_labels(images[:SHEET_PAIRS])
    title = "Top: input. Bottom: reconstruction."
    sheet = grids.grid(originals[:SHEET_PAIRS], 8, names, title, [reconstructed[:SHEET_PAIRS]])
    grids.write(folder / "grid.png", sheet, durable=False)
    say(_written(len(images), folder))
