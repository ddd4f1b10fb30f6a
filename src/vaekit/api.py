"""vaekit from Python: train, load, and a trained model with NumPy arrays in and out."""

import copy
import json
import operator
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from vaekit import devices
from vaekit.build import build
from vaekit.checkpoint import load_prior, load_weights, write_prior
from vaekit.data.batches import Batches
from vaekit.data.pack import Pack, open_pack
from vaekit.data.sources import as_images
from vaekit.errors import UserError
from vaekit.files import atomic_folder
from vaekit.judging.diagnosis import Measured, diagnose
from vaekit.judging.evaluation import Images as Judged
from vaekit.judging.evaluation import Subject, evaluate, work
from vaekit.judging.features import extractor
from vaekit.judging.likelihood import BATCH, require_density, weigh
from vaekit.latent_prior import fit_prior
from vaekit.model import VAE
from vaekit.parts.fitted import FittedPrior
from vaekit.reproduce import command
from vaekit.resolve import stored
from vaekit.run import Run, first_free, read_config, read_metrics, write_json
from vaekit.sampling import CHUNK, decode_means, draw_latents, seeded, to_uint8
from vaekit.screen import progress, say, talking
from vaekit.training.request import Request
from vaekit.training.session import run_training

if TYPE_CHECKING:
    import pandas as pd

Prior = Literal["fitted", "model"]
Labels = str | int | Sequence[str | int] | NDArray[Any]
"""The class of all images, or one for each, by name or number."""
Images = UInt8[np.ndarray, "N H W C"]
Latents = Float[np.ndarray, "N D"] | Float[np.ndarray, "N c h w"]
"""One vector an image, or a latent image where the model was trained with `latents="4x7x7"` or the like."""


def train(
    data: Any = None,
    *,
    preset: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    quiet: bool = False,
    **settings: Any,
) -> "Trained":
    """Train a VAE and return it with the weights of its best epoch.

    Args:
        data: a folder, an .npz or .npy file, a folder of IDX files, a uint8 array [N, H, W] or [N, H, W, C] (floats
            from 0 to 1 do too), a pair of such an array and labels [N], a torch Dataset or DataLoader, or None for
            the bundled sample. Nothing is ever written to it.
        preset: a name of `vaekit presets`; None chooses by the data.
        out: the run folder; None takes the first free one below runs/.
        resume: go on with the run in `out`.
        max_minutes: stop at the end of the epoch in which this time is up.
        quiet: print nothing.
        settings: any setting by the name of its flag (epochs=50, size=64); a part's as a dictionary
            (objective={"beta": 4}), by its kind (encoder="mlp"), or, for encoder and decoder, as a torch module of your
            own: the encoder maps images [B, C, H, W] to features [B, F], the decoder latents [N, D] to [N, C, H, W]
            (times the numbers a pixel that the likelihood wants); in a conditional model they get labels [B] as well.

    Raises:
        UserError: something about the request that the caller can mend, in one sentence.
        KeyboardInterrupt: after saving everything, so that `resume=True` goes on.
    """
    folder = Path(out).expanduser() if out is not None else None
    own = {room: module for room, module in settings.items() if isinstance(module, nn.Module)}
    for room in ("encoder", "decoder"):
        if callable(given := settings.get(room)) and room not in own:
            raise UserError(
                f"The {room} {getattr(given, '__name__', given)!r} is not a torch module: give an instance."
            )
    settings |= {room: {"kind": "own", "name": type(module).__name__} for room, module in own.items()}
    request = Request(data, (settings,), preset, folder, resume, max_minutes, quiet, own)
    return Trained(run_training(request), own)


def load(run: str | Path, *, encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> "Trained":
    """The trained model of a run folder, on the processor.

    `encoder` and `decoder` are for a model that was trained with modules of your own: make them as they were made then,
    and their weights are filled in.

    Raises:
        UserError: no run there, or a damaged one.
    """
    own = {"encoder": encoder, "decoder": decoder}
    return Trained(Run(Path(run)), {room: module for room, module in own.items() if module is not None})


class Trained:
    """A trained model with its configuration; images are uint8 [N, H, W, C], latents float32 [N, D]."""

    def __init__(self, run: Run, networks: Mapping[str, nn.Module] = MappingProxyType({})) -> None:
        record = read_config(run)
        self.run = run
        self.config = stored(record)
        self.shape: tuple[int, int, int] = tuple(record["shape"])
        """(C, H, W) of its images."""
        self.classes: tuple[str, ...] = tuple(record["classes"])
        """Names of the classes in its training data."""
        model, objective = build(self.config, self.shape, len(self.classes), networks=networks)
        load_weights(model, run.weights)
        self.model: VAE = model.eval().requires_grad_(False)
        """The tensor module: images [B, C, H, W] in [0, 1]."""
        self._settled = objective.settled
        self.fitted_prior: FittedPrior | None = load_prior(run)
        """The density fitted to its latents after training, where one is better than the model's own prior."""

    @property
    def history(self) -> "pd.DataFrame":
        """The metrics of every epoch (losses in nats per image)."""
        import pandas as pd

        return pd.DataFrame(read_metrics(self.run))

    def sample(
        self,
        n: int = 1,
        *,
        seed: int = 0,
        label: str | int | None = None,
        temperature: float = 1.0,
        prior: Prior | None = None,
    ) -> Images:
        """`n` new images, decoded from draws of a prior.

        The same seed gives the same images, and more of them as `n` grows.

        Args:
            n: number of images.
            seed: of the draws.
            label: a class by name or number. Without one a conditional model goes through all classes in turn; any
                other draws them as often as they are in the training data. A model that was trained without labels
                takes one where its prior was fitted to images with classes.
            temperature: scale of the latent noise; below 1: more typical, less varied.
            prior: "fitted" to the latents, "model" for the model's own; None for the fitted one where there is one.

        Raises:
            UserError: a class that it does not know, or a prior that it does not have.
        """
        if n < 0:
            raise UserError(f"{n} images are not possible: ask for 0 or more.")
        if not 0 <= temperature <= 100:
            raise UserError(f"A temperature of {temperature} is not possible: it should be between 0 and 100.")
        fitted = self._prior(prior)
        if label is not None and not self.model.classes and fitted is not None and len(fitted.shares) > 1:
            z = draw_latents(self.model, n, seed, torch.full((n,), self._class_number(label)), temperature, fitted)
            return self._decode(z, None)
        y = self._labels(label, n)
        return self._decode(draw_latents(self.model, n, seed, y, temperature, fitted), y)

    def sample_labels(self, n: int, label: str | int | None = None) -> list[str] | None:
        """The class names of the images that `sample` draws; None without classes."""
        if not self.model.classes:
            return None if label is None else [self.classes[self._class_number(label)]] * n
        y = self._labels(label, n)
        return None if y is None else [self.classes[i] for i in y.tolist()]

    def fit_prior(self, *, quiet: bool = False) -> dict[str, Any]:
        """Fit a prior to the latents of the training images anew, as `train` does at its end, and use it from now on
        where it is better than the model's own.

        Returns log-densities of held-out encodings, in nats per image, under everything that was tried.

        Raises:
            UserError: the training images are not there as they were.
        """
        device = devices.best()
        pack = self._own_pack(quiet)
        batches = Batches(pack, self.config.data, CHUNK, self.config.training.seed, device)
        with talking(quiet):
            fit = fit_prior(copy.deepcopy(self.model).to(device), batches, self.config.training.seed, quiet)
            write_prior(self.run, fit.prior, fit.record)
            say(fit.sentence)
        self.fitted_prior = load_prior(self.run)
        return fit.record

    def _prior(self, named: Prior | None) -> FittedPrior | None:
        if named not in (None, "fitted", "model"):
            raise UserError(f"There is no prior {named!r}: it is 'fitted' or 'model'.")
        if named == "fitted" and self.fitted_prior is None:
            raise UserError(
                "This run has no prior fitted to its latents: `vaekit fit-prior RUN` fits one where it is better than "
                "the model's own."
            )
        return None if named == "model" else self.fitted_prior

    def encode(self, images: Any, labels: Labels | None = None) -> Latents:
        """The means of q(z | x) of images [N, H, W, C] (uint8, or floats from 0 to 1)."""
        x, y = self._tensor(images), None
        y = self._labels(labels, len(x), needed=True)
        parts = zip(x.split(CHUNK), _split(y, len(x)), strict=True)
        means = [self.model.encode(self.model.observe(part), label).mean for part, label in parts]
        z = torch.cat(means) if means else torch.zeros(0, self.model.latents)
        latents: Latents = z.unflatten(1, self.model.latent_shape).numpy()
        return latents

    def decode(self, z: Latents, labels: Labels | None = None) -> Images:
        """The images at latents [N, D]: means of p(x | z)."""
        tensor = torch.as_tensor(np.asarray(z, np.float32))
        shape = self.model.latent_shape
        if tensor.shape[1:] != shape:
            raise UserError(f"Latents should have shape [N, {', '.join(map(str, shape))}], not {list(tensor.shape)}.")
        return self._decode(tensor.flatten(1), self._labels(labels, len(tensor)))

    def reconstruct(self, images: Any, labels: Labels | None = None) -> Images:
        """Images through the model and back: the mean of p(x | z) at the mean of q(z | x)."""
        return self.decode(self.encode(images, labels), labels)

    def log_likelihood(
        self,
        images: Any,
        labels: Labels | None = None,
        *,
        samples: SupportsIndex = 1000,
        seed: int = 0,
    ) -> Float[np.ndarray, " N"]:
        """log p(x) of every image in nats, by importance sampling: a lower bound that rises with `samples`.

        Raises:
            UserError: the model has no likelihood (its posterior is a point).
        """
        require_density(self.model)
        samples = _counted(samples)
        x = self._tensor(images)
        y = self._labels(labels, len(x), needed=True)
        found = [torch.zeros(0, dtype=torch.float64)]
        for index, (part, label) in enumerate(zip(x.split(BATCH), _split(y, len(x), BATCH), strict=True)):
            with seeded(seed, "evaluate", index):
                found.append(weigh(self.model, self.model.observe(part), label, samples).bounds[samples])
        return torch.cat(found).float().numpy()

    def evaluate(
        self, data: Any = None, *, samples: SupportsIndex = 1000, seed: int = 0, quiet: bool = False
    ) -> dict[str, Any]:
        """What the model is worth, by images that did not train it: their likelihood and reconstructions, new images
        beside them, copies of training images, and a diagnosis with remedies.

        It is returned and written to evaluation.json; docs/evaluation.md explains its content.

        Args:
            data: what `train` takes: its test side is judged, or all of it where it has none; None for the test side
                of the training data, or their validation side where they have none.
            samples: importance samples of every image; more bring the bound closer to log p(x).
            seed: of the samples.
            quiet: print nothing.

        Raises:
            UserError: images of another shape, or classes the model does not know.
        """
        samples = _counted(samples)
        pack, side, rows = self._held_out(data, quiet)
        device, fitted = devices.best(), self.fitted_prior
        subject = Subject(
            copy.deepcopy(self.model).to(device),
            None if fitted is None else copy.deepcopy(fitted).to(device),
            Judged(pack.images[rows], self._numbers(pack, rows)),
            self._training_images(quiet),
            seed,
        )
        begun = time.perf_counter()
        with talking(quiet):
            network, said = extractor()
            if said:
                say(said[0].upper() + said[1:])
            with progress(work(subject, network), "likelihood", quiet=quiet) as advance:
                found = evaluate(subject, samples, network, advance)
        measured = Measured(
            self.config,
            found,
            [row for row in read_metrics(self.run) if row["epoch"] > self._settled],
            len(subject.training or ()),
            str(self.run.folder),
            self._again,
        )
        record = {
            "format": 1,
            "data": pack.source,
            "side": side,
            "seed": seed,
            **found,
            "diagnosis": diagnose(measured),
            "seconds": round(time.perf_counter() - begun, 1),
        }
        write_json(self.run.evaluation, record)
        return record

    def _again(self, changes: Mapping[str, Any]) -> str:
        """The command that trains such a model with a change, into a new run."""
        return command(read_config(self.run), self._dataset, changes, str(first_free(Path("runs"), "next")))

    @property
    def _dataset(self) -> dict[str, Any]:
        return dict(json.loads(self.run.dataset.read_text(encoding="utf-8")))

    def _training_images(self, quiet: bool) -> Judged | None:
        """None where they are not there as they were."""
        try:
            pack = self._own_pack(quiet)
        except UserError:
            return None
        rows = pack.sides["train"]
        return Judged(pack.images[rows], self._numbers(pack, rows))

    def _numbers(self, pack: Pack, rows: slice) -> NDArray[np.int64] | None:
        """The model's number of the class of every image; None for a model without classes.

        Raises:
            UserError: no classes there, or one that it does not know.
        """
        if self.model.classes:
            if not pack.classes:
                raise UserError(
                    f"The images of {pack.source} have no classes, and this model is conditional: put each of its "
                    f"classes ({self._names()}) in a folder of its own."
                )
            if missing := set(pack.classes) - set(self.classes):
                raise UserError(f"This model knows no class {min(missing)!r}: it knows {self._names()}.")
            return np.array([self.classes.index(name) for name in pack.classes])[pack.labels[rows]]
        return None

    def _held_out(self, data: Any, quiet: bool) -> tuple[Pack, str, slice]:
        """The pack to judge on, the name of the side in it, and its rows."""
        source, (channels, height, width) = read_config(self.run)["source"], self.shape
        own = data is None or (isinstance(data, (str, Path)) and str(Path(data).expanduser().resolve()) == source)
        if own:
            pack = self._own_pack(quiet)
        else:
            settings = self.config.data.model_copy(update={"size": f"{width}x{height}", "validation": "0.1"})
            pack = open_pack(data, settings, quiet)
        if pack.shape != self.shape:
            raise UserError(
                f"This model takes images with {channels} colour channels, those of {pack.source} have "
                f"{pack.shape[0]}: name other images with --data."
            )
        if pack.sides["test"].stop > pack.sides["test"].start:
            return pack, "test", pack.sides["test"]
        return (pack, "validation", pack.sides["validation"]) if own else (pack, "all", slice(0, len(pack.images)))

    def _own_pack(self, quiet: bool) -> Pack:
        """The pack that the model was trained on.

        Raises:
            UserError: the images are not there as they were.
        """
        pack = open_pack(read_config(self.run)["source"], self.config.data, quiet)
        if pack.identity != json.loads(self.run.dataset.read_text(encoding="utf-8"))["fingerprint"]:
            raise UserError("The training images are not there as they were: bring them back, or name others (--data).")
        return pack

    def save(self, folder: str | Path) -> None:
        """Write the model to a new folder that `load` reads: configuration, weights and history.

        Raises:
            UserError: the folder exists.
        """
        target = Path(folder)
        if target.exists():
            if target.resolve() == self.run.folder.resolve():
                return
            raise UserError(f"{target} is there already: name a new folder.")
        with atomic_folder(target) as temporary:
            copy = Run(temporary)
            for source, destination in (
                (self.run.config, copy.config),
                (self.run.dataset, copy.dataset),
                (self.run.weights, copy.weights),
                (self.run.latent_prior, copy.latent_prior),
                (self.run.metrics, copy.metrics),
                (self.run.loss_graph, copy.loss_graph),
            ):
                if source.exists():
                    shutil.copyfile(source, destination)

    # --- between arrays and tensors ---

    def _decode(self, z: Tensor, y: Tensor | None) -> Images:
        if not len(z):
            channels, height, width = self.shape
            return np.zeros((0, height, width, channels), np.uint8)
        return to_uint8(decode_means(self.model, z, y)).numpy()

    def _tensor(self, images: Any) -> Tensor:
        array = as_images(images)
        channels, height, width = self.shape
        if array.shape[1:] != (height, width, channels):
            raise UserError(
                f"This model takes images [N, {height}, {width}, {channels}], not {list(array.shape)}: "
                "resize them first, or use `vaekit reconstruct` on the files."
            )
        array = np.require(array, requirements=("C", "W"))  # torch refuses or warns of others
        # the same memory order for every input: convolutions round differently in another
        return torch.from_numpy(array).permute(0, 3, 1, 2).float().clone(memory_format=torch.contiguous_format) / 255

    def _labels(self, given: Labels | None, n: int, needed: bool = False) -> Tensor | None:
        """Class numbers [n], or None for an unconditional model."""
        if not self.model.classes:
            if given is not None:
                raise UserError("This model knows no classes: train one with --conditional to choose a class.")
            return None
        if given is None:
            if needed:
                raise UserError(f"This model is conditional: give the class of every image, one of {self._names()}.")
            return torch.arange(n) % self.model.classes
        many = [given] * n if isinstance(given, (str, int, np.integer)) else np.asarray(given).tolist()
        if len(many) != n:
            raise UserError(f"{len(many)} labels for {n} images: give one label, or one for each image.")
        return torch.tensor([self._class_number(one) for one in many], dtype=torch.long)

    def _class_number(self, name: str | int) -> int:
        if isinstance(name, str) and name in self.classes:
            return self.classes.index(name)
        if isinstance(name, (int, np.integer)) and 0 <= name < len(self.classes):
            return int(name)
        raise UserError(
            f"There is no class {name!r} in this model: it knows {self._names()}; name one of them (--class NAME)."
        )

    def _names(self) -> str:
        return ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")


def _split(y: Tensor | None, n: int, size: int = CHUNK) -> Sequence[Tensor | None]:
    return y.split(size) if y is not None else [None] * max(1, -(-n // size))  # as torch splits nothing


def _counted(samples: SupportsIndex) -> int:
    try:
        count = operator.index(samples)
    except TypeError:
        count = 0
    if not 1 <= count <= 10_000_000:
        raise UserError(f"{samples} samples are not possible: ask for a whole number from 1 to 10,000,000.")
    return count
