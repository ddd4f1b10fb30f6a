"""Images out of a model: `generate`, `reconstruct`, `fit-prior`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from vaekit.cli.flags import Out, RunFolder, Seed
from vaekit.errors import UserError


def generate(
    run: RunFolder,
    /,
    *,
    n: Annotated[int, Parameter(name=["-n", "--count"], help="Number of images.")] = 64,
    class_: Annotated[str | None, Parameter(name="--class", help="Class to draw, where the images had any.")] = None,
    prior: Annotated[
        Literal["fitted", "model"] | None,
        Parameter(help="Fitted to the latents after training (default, where there is one), or the model's own."),
    ] = None,
    temperature: Annotated[float, Parameter(help="Scale of the latent noise; below 1: less varied.")] = 1.0,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Draw new images from the latent space: PNG files and a grid."""
    from vaekit.api import load
    from vaekit.plots import grids
    from vaekit.runs.outputs import first_free, new_folder
    from vaekit.utils.files import safe_name

    if not 1 <= n <= 1_000_000:
        raise UserError(f"-n {n} is not possible: it should be between 1 and 1,000,000.")
    model = load(run)
    folder = new_folder(model.run, out or first_free(run / "generated", "set"))
    images = model.sample(n, seed=seed, label=class_, temperature=temperature, prior=prior)
    labels = model.sample_labels(n, class_)
    names = [f"{i:04d}" + (f"-{safe_name(labels[i - 1])}" if labels else "") for i in range(1, n + 1)]
    files = dict(zip(names, map(grids.picture, images), strict=True))
    fitted = model.fitted_prior if prior != "model" else None
    print(f"Drawn from {'its own prior' if fitted is None else f'a prior fitted to its latents: {fitted.name}'}")
    print(grids.write_folder(folder, files, grids.grid(images[:256], labels=labels)))


def fit_prior(run: RunFolder, /) -> None:
    """Fit a prior to the latents of the training images, which `generate` draws from where it is better."""
    from vaekit.api import load

    scores = load(run).fit_prior()["nats_per_held_out_image"]
    if len(scores) == 1:  # nothing was tried
        return
    print("Mean log-density of held-out latents, in nats:")
    for name, nats in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"  {nats:10.2f}  {name}")


def reconstruct(
    run: RunFolder,
    /,
    *images: Annotated[Path, Parameter(help="Image files.")],
    class_: Annotated[
        str | None, Parameter(name="--class", help="Class of the images (default: their folder's name).")
    ] = None,
    out: Out = None,
) -> None:
    """Pass image files through the model and back: input beside output."""
    from vaekit.api import load
    from vaekit.data.packs.pack import load_images
    from vaekit.plots import grids
    from vaekit.runs.outputs import first_free, new_folder
    from vaekit.utils.files import safe_name

    if not images:
        raise UserError("Missing image files.", "Usage: vaekit reconstruct RUN IMAGE ...")
    model = load(run)
    folder = new_folder(model.run, out or first_free(run / "reconstructed", "set"))
    originals = load_images(images, model.config.data, model.shape)
    reconstructed = model.reconstruct(
        originals, class_ or ([path.resolve().parent.name for path in images] if model.model.classes else None)
    )
    names = [f"{i:04d}-{safe_name(path.stem)}" for i, path in enumerate(images, 1)]
    sheets = [grids.pairs(one[None], two[None]) for one, two in zip(originals, reconstructed, strict=True)]
    overview = grids.pairs(originals[:64], reconstructed[:64], labels=[path.name for path in images[:64]])
    print(grids.write_folder(folder, dict(zip(names, sheets, strict=True)), overview))
