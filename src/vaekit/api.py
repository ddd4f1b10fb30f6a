"""vaekit from Python: train, load, and a trained model with NumPy arrays in and out."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaekit.config.config import Config
from vaekit.data.loader import ImageLoader
from vaekit.data.packs.pack import load_images
from vaekit.data.sources.arrays import to_uint8_images
from vaekit.data.sources.torch_datasets import is_dataset
from vaekit.errors import UserError, setting
from vaekit.evaluation.context import DEFAULT_NEW_IMAGES, MIN_NEW_IMAGES
from vaekit.evaluation.evaluate import evaluate_model
from vaekit.evaluation.likelihood import log_likelihoods, require_density
from vaekit.evaluation.ranking import rank
from vaekit.latents import encode, traverse
from vaekit.latents.fit_prior import fit_prior
from vaekit.latents.sampling import CHUNK, decode_images, generate_images, interpolate, to_uint8
from vaekit.latents.traverse import Traversal
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.vae import VAE
from vaekit.plots import grids
from vaekit.plots.notebook import ImageArray, html_card
from vaekit.report.report import facts, write_report
from vaekit.runs.checkpoint import write_prior
from vaekit.runs.folder import Run
from vaekit.runs.image_set import BATCH, to_tensor
from vaekit.runs.inputs import (
    Images,
    Labels,
    Latents,
    check_count,
    class_index,
    class_indices,
    common_folder,
    format_names,
    training_pack,
)
from vaekit.runs.loaded import LoadedModel, load_model
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import new_folder, require_writable
from vaekit.training.callbacks import Callback
from vaekit.training.plan import TrainRequest
from vaekit.training.session import run_training
from vaekit.utils.files import atomic_folder
from vaekit.utils.logging import console_logging, log

if TYPE_CHECKING:
    import pandas as pd


Prior = Literal["fitted", "model"]


def train(
    data: Any = None,
    *,
    preset: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    report: bool = True,
    callbacks: Sequence[Callback] | None = None,
    quiet: bool = False,
    **settings: Any,
) -> "TrainedModel":
    """Train a VAE and return it with the weights of its best epoch.

    Args:
        data: a folder, an .npz or .npy file, a folder of IDX files, a uint8 array [N, H, W] or [N, H, W, C] (floats
            from 0 to 1 do too), a pair of such an array and labels [N], a torch Dataset or DataLoader, or None for
            the bundled sample. Nothing is ever written to it.
        preset: a name of `vaekit presets`; None chooses by the data.
        out: the run folder; None takes the first free one below runs/.
        resume: go on with the run in `out`.
        max_minutes: stop at the end of the epoch in which this time is up.
        report: write report.html at the end, which takes some seconds.
        callbacks: what happens besides training and saving (pictures, loss graph, fitted prior); None for all of it,
            [] for nothing. See `vaekit.training.callbacks`.
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
    own = {slot: module for slot, module in settings.items() if isinstance(module, nn.Module)}
    for slot in ("encoder", "decoder"):
        if callable(given := settings.get(slot)) and slot not in own:
            raise UserError(
                f"The {slot} {getattr(given, '__name__', given)!r} is not a torch module: give an instance."
            )
    settings |= {slot: {"kind": "own", "name": type(module).__name__} for slot, module in own.items()}
    request = TrainRequest(data, (settings,), preset, folder, resume, max_minutes, quiet, own, report)
    run = run_training(request, callbacks)
    device = settings.get("device", "auto")
    trained = TrainedModel(load_model(run, own, device, None if is_dataset(data) else data))
    if report:
        trained.report(quiet=quiet)
    return trained


def load(
    run: str | Path,
    *,
    device: str | torch.device = "auto",
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> "TrainedModel":
    """The trained model of a run folder.

    `device` is "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" or "mps": where everything is computed.

    `encoder` and `decoder` are for a model that was trained with modules of your own: make them as they were made then,
    and their weights are filled in.

    Raises:
        UserError: no run there, or a damaged one.
    """
    own = {"encoder": encoder, "decoder": decoder}
    networks = {slot: module for slot, module in own.items() if module is not None}
    return TrainedModel(load_model(Run(Path(run).expanduser()), networks, device))


class TrainedModel:
    """A trained model; images are uint8 [N, H, W, C], latents float32 [N, D]."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded

    @property
    def run(self) -> Run:
        """Its run folder."""
        return self.loaded.run

    @property
    def config(self) -> Config:
        """Everything that decided what training computed."""
        return self.loaded.config

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        return self.loaded.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in its training data."""
        return self.loaded.classes

    @property
    def model(self) -> VAE:
        """The tensor module: images [B, C, H, W] in [0, 1]."""
        return self.loaded.vae

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.loaded.device

    @property
    def fitted_prior(self) -> FittedPrior | None:
        """The density fitted to its latents after training, where it beats the model's own prior.

        Raises:
            UserError: its file is damaged.
        """
        return self.loaded.fitted_prior

    @property
    def history(self) -> "pd.DataFrame":
        """The metrics of every epoch (losses in nats per image)."""
        import pandas as pd

        return pd.DataFrame(read_metrics(self.run)).astype({"epoch": int, "step": int})

    def to(self, device: str | torch.device) -> "TrainedModel":
        """The same model on another device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" or "mps"."""
        return TrainedModel(self.loaded.to(device))

    def __repr__(self) -> str:
        channels, height, width = self.shape
        images = f"{width}x{height} {({1: 'gray', 3: 'colour', 4: 'RGBA'})[channels]} images"
        return f"<vaekit model of {images}, {self.config.latents} latents, in {self.run.folder}>"

    def _repr_html_(self) -> str:
        """The model in a notebook: its facts, and new images."""
        sheet = grids.grid(self.sample(16), 8, self.sample_labels(16), "New images")
        return html_card(self.run.folder.resolve().name, facts(self.loaded), sheet)

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
        batches = self.sample_batches(n, seed=seed, label=label, temperature=temperature, prior=prior)
        channels, height, width = self.shape
        images: Images = np.concatenate([np.zeros((0, height, width, channels), np.uint8), *batches])
        return images.view(ImageArray)

    def sample_batches(
        self,
        n: int,
        *,
        seed: int = 0,
        label: str | int | None = None,
        temperature: float = 1.0,
        prior: Prior | None = None,
    ) -> Iterator[Images]:
        """The images of `sample`, up to 64 at a time, so that memory does not grow with `n`.

        Arguments and errors are those of `sample`; errors are raised at once.
        """
        if n < 0:
            raise UserError(f"must be at least 0 (got {n}).", option="n")
        if not 0 <= temperature <= 100:
            raise UserError(f"must be between 0 and 100 (got {temperature}).", option="temperature")
        source = self._prior(prior)
        y, prior_y = self._sample_labels(n, label, source)
        return (batch.numpy() for batch in generate_images(self.model, source, n, seed, y, prior_y, temperature))

    def _sample_labels(
        self, n: int, label: str | int | None, source: VAE | FittedPrior
    ) -> tuple[Tensor | None, Tensor | None]:
        """The labels [n] that `sample` gives the decoder, and those that it gives the prior."""
        if self.model.classes:
            y = torch.arange(n) % self.model.classes if label is None else class_indices(label, n, self.classes)
            return y.to(self.device), None
        if label is None:
            return None, None
        if isinstance(source, FittedPrior) and len(source.shares) > 1:
            return None, torch.full((n,), class_index(label, self.classes), device=self.device)
        if self.classes and self.fitted_prior is not None:
            raise UserError(
                "This model was trained without labels, and its own prior has no classes.",
                f"Leave out {setting('prior', 'model')}.",
            )
        self._labels(label, n)  # which this model has none of
        return None, None

    def sample_labels(self, n: int, label: str | int | None = None) -> list[str] | None:
        """The class names of the images that `sample` draws; None without classes."""
        if label is not None:
            return [self.classes[class_index(label, self.classes)]] * n
        return [self.classes[i % self.model.classes] for i in range(n)] if self.model.classes else None

    def fit_prior(self, *, quiet: bool = False) -> dict[str, Any]:
        """Fit a prior to the latents of the training images anew, as `train` does at its end, and use it from now on
        where it is better than the model's own.

        Returns log-densities of held-out encodings, in nats per image, under everything that was tried.

        Raises:
            UserError: the training images are not there as they were.
        """
        pack = training_pack(self.loaded, quiet)
        images = ImageLoader(pack, self.config.data, CHUNK, self.config.training.seed, self.device)
        with console_logging(quiet):
            require_writable(self.run)
            fit = fit_prior(self.model, images, self.config.training.seed, quiet)
            write_prior(self.run, fit.prior, fit.record, self.loaded.weights_hash)
            log.info(fit.sentence)
        self.loaded = replace(self.loaded)  # which reads it anew
        return fit.record

    def _prior(self, named: Prior | None) -> VAE | FittedPrior:
        """What `sample` draws latents from."""
        if named not in (None, "fitted", "model"):
            raise UserError(f"There is no prior {named!r}.", "It is 'fitted' or 'model'.", "prior")
        if named == "model" or (named is None and self.fitted_prior is None):
            return self.model
        if self.fitted_prior is None:
            raise UserError(
                "This run has no fitted prior.",
                "`vaekit fit-prior RUN` fits one and keeps it if it beats the model's own.",
            )
        return self.fitted_prior

    def encode(self, images: Any, labels: Labels | None = None) -> Latents:
        """The means of q(z | x) of images [N, H, W, C] (uint8, or floats from 0 to 1)."""
        x, y = self._tensor(images), self._labels(labels, len(images))
        parts = zip(x.split(CHUNK), _split(y, len(x)), strict=True)
        means = [self.model.posterior_of(part.to(self.device), label).mean.cpu() for part, label in parts]
        z = torch.cat(means) if means else torch.zeros(0, self.model.latents)
        latents: Latents = z.unflatten(1, self.model.latent_shape).numpy()
        return latents

    def decode(self, z: Latents, labels: Labels | None = None) -> Images:
        """The images at latents [N, D]: locations of p(x | z), the centres of its noise clipped to [0, 1].

        `model.decode(z).mean` is its mean, in which noise that is clipped at white and black makes both grayish.
        """
        tensor = torch.as_tensor(np.asarray(z, np.float32))
        shape = self.model.latent_shape
        if tensor.shape[1:] != shape:
            raise UserError(f"Latents should have shape [N, {', '.join(map(str, shape))}], not {list(tensor.shape)}.")
        return self._decode(tensor.flatten(1), self._labels(labels, len(tensor)))

    def reconstruct(self, images: Any, labels: Labels | None = None) -> Images:
        """Images through the model and back: the location of p(x | z) at the mean of q(z | x)."""
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
        samples = check_count(samples)
        x = self._tensor(images)
        y = self._labels(labels, len(x))
        parts = zip(x.to(self.device).split(BATCH), _split(y, len(x), BATCH), strict=True)
        return log_likelihoods(self.model, parts if len(x) else (), samples, seed)[0].float().numpy()

    def latents(self, data: Any = None, *, out: str | Path | None = None, quiet: bool = False) -> "pd.DataFrame":
        """The means of q(z | x) of every image of a data set, as a table.

        Its rows are in the order of the files' paths, its columns `file` (the path in the folder, or side/number in an
        array), `label` where there are classes, and z1 .. zD, float32; a latent image is flattened.

        Args:
            data: what `train` takes; None for the training data.
            out: a new .csv, .npz or .parquet file to write it to as well.
            quiet: print nothing.

        Raises:
            UserError: images of another shape, classes that a conditional model does not know, or no place to write.
        """
        return encode.latents(self.loaded, data, None if out is None else Path(out), quiet)

    def interpolate(
        self,
        image_a: Any,
        image_b: Any,
        *,
        steps: int = 9,
        how: Literal["spherical", "linear"] = "spherical",
        label: str | int | None = None,
    ) -> Images:
        """`steps` images [steps, H, W, C] on the way from one image to another, decoded from between their posterior
        means; the first and the last are the reconstructions of the two.

        Args:
            image_a: [H, W, C], or [H, W] if gray, uint8 or floats from 0 to 1; or the path of an image file.
            image_b: likewise.
            steps: how many images, the ends included.
            how: "spherical" keeps to the distances from the origin at which latents lie, "linear" is a straight line.
            label: in a conditional model, the class to encode and decode all with; for two Paths in one
                folder, None is the class of its name.

        Raises:
            UserError: no such way, images of another shape, or no class where the model wants one.
        """
        if how not in ("spherical", "linear"):
            raise UserError(f"There is no way {how!r} between latents: it is 'spherical' or 'linear'.")
        if not 2 <= steps <= 100:
            raise UserError(f"{steps} steps are not possible: ask for 2 to 100.")
        if label is None and self.model.classes and isinstance(image_a, Path) and isinstance(image_b, Path):
            label = common_folder(image_a, image_b)
        ends = [self._image(one) for one in (image_a, image_b)]
        z = torch.from_numpy(self.encode(np.concatenate(ends), label)).flatten(1)
        path = interpolate(z[0], z[1], steps, how == "spherical")
        return self._decode(path, self._labels(label, steps))

    def traverse(
        self, *, rows: int = 10, columns: int = 11, label: str | int | None = None, quiet: bool = False
    ) -> Traversal:
        """What the latents do to a picture: images [rows, columns, H, W, C], in each row another latent varied from
        -2.5 to 2.5 standard deviations about its mean while all others stay at theirs, the most active latent first.

        Means and standard deviations are those of the aggregate posterior, measured on up to 2,000 images of the
        validation side (with the train side where that is small). Where the training data are gone they are 0 and 1,
        and the latents come first that change the picture most.

        Args:
            rows: how many latents, at most.
            columns: how many images of each; an odd number has the mean in the middle.
            label: in a conditional model, the class of all images; None for the first.
            quiet: print nothing.

        Raises:
            UserError: a class that the model does not know, or no rows or columns.
        """
        if not (1 <= rows <= 1000 and 2 <= columns <= 100):
            raise UserError(f"{rows} rows of {columns} are not possible: ask for 1 to 1,000 rows of 2 to 100 columns.")
        known = self._labels(0 if label is None and self.model.classes else label, 1)
        number = None if known is None else int(known)
        with console_logging(quiet):
            return traverse.traverse(
                self.model, traverse.latent_stats(self.loaded, number, quiet), number, rows, columns
            )

    def rank(
        self,
        data: Any = None,
        *,
        samples: SupportsIndex = 100,
        seed: int = 0,
        out: str | Path | None = None,
        quiet: bool = False,
    ) -> "pd.DataFrame":
        """The images of a data set by their log-likelihood, odd ones first.

        The likelihood of pixels is high for flat and simple images whatever they show (Nalisnick et al. 2019,
        arXiv:1810.09136; Serrà et al. 2020, arXiv:1909.11480): the first rows are unusual or busy, and an image of
        something else that is simpler than all others may be the last.

        Args:
            data: what `train` takes; None for the training data.
            samples: importance samples of every image.
            seed: of the samples.
            out: a new .csv file to write it to as well, beside it a .png of the 32 images at either end.
            quiet: print nothing.

        Returns:
            A row an image: `rank` from 1, `file`, `label` where there are classes, `log_likelihood` in nats, and
            `bits_per_dimension` where the likelihood is one of 256 levels.

        Raises:
            UserError: a model without likelihood, images of another shape, classes that a conditional model does not
                know, or no place to write.
        """
        return rank(self.loaded, data, check_count(samples), seed, None if out is None else Path(out), quiet)

    def evaluate(
        self,
        data: Any = None,
        *,
        samples: SupportsIndex = 1000,
        new_images: SupportsIndex = DEFAULT_NEW_IMAGES,
        seed: int = 0,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """What the model is worth, by images that did not train it: their likelihood and reconstructions, new images
        beside them, copies of training images, and a diagnosis with remedies.

        It is returned and written to evaluation.json; docs/evaluation.md explains its content.

        Args:
            data: what `train` takes: its test side is judged, or all of it where it has none; None for the test side
                of the training data, or their validation side where they have none.
            samples: importance samples of every image; more bring the bound closer to log p(x).
            new_images: how many are compared with as many held-out ones, at most half of these; 50 or more. Memory
                and time grow with their square: 5,000 take 3 GB.
            seed: of the samples.
            quiet: print nothing.

        Raises:
            UserError: images of another shape, or classes the model does not know.
        """
        count = check_count(new_images, "new images", MIN_NEW_IMAGES)
        return evaluate_model(self.loaded, data, check_count(samples), count, seed, quiet).model_dump(mode="json")

    def report(self, *, quiet: bool = False) -> Path:
        """Write report.html: all about this model on one page that opens without a network. Returns its path.

        Its figures are those of `evaluate`; of a model that was not evaluated, those of a quick look.
        """
        write_report(self.loaded, quiet)
        return self.run.report

    def save(self, folder: str | Path) -> None:
        """Write the model to a new folder that `load` reads: configuration, weights and history.

        Raises:
            UserError: the folder exists.
        """
        target = Path(folder).expanduser()
        if target.resolve() == self.run.folder.resolve():
            return
        if target.exists():
            raise UserError(f"{target} is there already: name a new folder.")
        target = new_folder(self.run, target)
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
        return to_uint8(decode_images(self.model, z, y)).numpy().view(ImageArray)

    def _image(self, given: Any) -> Images:
        """One image, an array or a file, as [1, H, W, C]."""
        if isinstance(given, (str, Path)):
            return load_images([given], self.config.data, self.shape)
        return to_uint8_images(given[None] if hasattr(given, "ndim") else np.asarray(given)[None])

    def _tensor(self, images: Any) -> Tensor:
        return to_tensor(images, self.shape)

    def _labels(self, given: Labels | None, n: int) -> Tensor | None:
        """Class indices [n] on the device, or None for an unconditional model."""
        if not self.model.classes:
            if given is not None:
                raise UserError(
                    "This model has no classes.", f"Train one with {setting('conditional', True)} to choose a class."
                )
            return None
        if given is None:
            raise UserError(
                "This model is conditional, so it needs the class of every image.",
                f"Give one of {format_names(self.classes)}.",
                "labels",
            )
        return class_indices(given, n, self.classes).to(self.device)


def _split(y: Tensor | None, n: int, size: int = CHUNK) -> Sequence[Tensor | None]:
    return y.split(size) if y is not None else [None] * max(1, -(-n // size))  # as torch splits nothing
