"""How to make the picture of a place without the page."""

import shlex

import numpy as np

from vaekit.explorer.places import NewImage, OfImage, Place
from vaekit.explorer.resolve import Latents
from vaekit.runs.loaded import LoadedModel


def recipe(model: LoadedModel, place: Place, latents: Latents, file: str | None) -> str:
    """A command for new images, or lines of Python.

    Args:
        model: the model.
        place: where the picture is.
        latents: its latents.
        file: the file of an image of the run.
    """
    folder = str(model.run.folder)
    if isinstance(place, NewImage):
        return _command(folder, place)
    lines = ["import numpy as np", "import vaekit", "", f"vae = vaekit.load({folder!r})"]
    if isinstance(place, OfImage):
        lines.append(f"# the reconstruction of {file}")
    numbers = ", ".join(f"{value:.7g}" for value in latents.z.tolist())
    shape = ", ".join(map(str, model.vae.latent_shape))
    lines.append(f"z = np.array([{numbers}], np.float32).reshape(1, {shape})")
    lines.append(f"image = vae.decode(z{_label(model, latents)})[0]")
    return "\n".join(lines)


def _command(folder: str, place: NewImage) -> str:
    options = {
        "--seed": place.seed,
        "--class": place.label,
        "--temperature": None if place.temperature == 1 else place.temperature,
        "--prior": place.prior,
        "--steps": place.steps,
        "--guidance": place.guidance,
    }
    given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
    command = shlex.join(["vaekit", "generate", folder, "-n", str(place.index + 1), *given])
    return f"{command}\n# image {place.index + 1}"


def _label(model: LoadedModel, latents: Latents) -> str:
    if latents.y is None:
        return ""
    if latents.y.ndim:
        return f", np.array({np.round(latents.y.cpu().numpy(), 6).tolist()})"
    return f", {model.classes[int(latents.y)]!r}"
