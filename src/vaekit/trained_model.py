"""A trained model, with NumPy arrays in and out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float

from vaekit.config.config import Config
from vaekit.data.packs.pack import channel_text
from vaekit.data.sources.conditions import Condition
from vaekit.errors import UserError
from vaekit.evaluation.context import DEFAULT_NEW_IMAGES, MIN_NEW_IMAGES
from vaekit.evaluation.evaluate import evaluate_model
from vaekit.evaluation.likelihood import log_likelihoods, require_density
from vaekit.evaluation.ranking import RANK_SAMPLES, rank
from vaekit.export import hub
from vaekit.export.export import export_model
from vaekit.latents import arrays, tables, traverse
from vaekit.latents.fit_prior import refit_prior
from vaekit.latents.new_latents import Prior
from vaekit.latents.traverse import Traversal
from vaekit.models.fitted_prior import FittedPrior
from vaekit.models.flow_matching import FlowMatching
from vaekit.models.vae import VAE
from vaekit.plots import grids
from vaekit.plots.notebook import ImageArray, html_card
from vaekit.report.report import facts, write_report
from vaekit.runs.conditions import chosen_label
from vaekit.runs.folder import Run
from vaekit.runs.inputs import Images, Labels, Latents, check_count
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metrics import read_metrics
from vaekit.runs.outputs import copy_run
from vaekit.training.session import train_second_stage

if TYPE_CHECKING:
    import pandas as pd


class TrainedModel:
    """A trained model; images are uint8 [N, H, W, C], latents float32 [N, D].

    Images may also be floats from 0 to 1. Labels are class names or indices, one for each image or one for
    all; of a model with conditions, dictionaries of these.
    """

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
        """The tensor module, of images [B, C, H, W] in [0, 1]."""
        return self.loaded.vae

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.loaded.device

    @property
    def fitted_prior(self) -> FittedPrior | FlowMatching | None:
        """The density fitted to its latents after training, if it is better than the model's own."""
        return self.loaded.fitted_prior

    @property
    def history(self) -> "pd.DataFrame":
        """The metrics of every epoch (losses in nats per image). Raises a UserError if the run is gone."""
        import pandas as pd

        if not self.run.metrics.exists():
            message = f"{self.run.metrics} does not exist; the run was moved or deleted."
            raise UserError(message, "Load the model from where the run is now.")
        return pd.DataFrame(read_metrics(self.run)).astype({"epoch": int, "step": int})

    def to(self, device: str | torch.device) -> "TrainedModel":
        """The same model on another device: "auto", "cpu", "cuda", "cuda:1" or "mps"."""
        return TrainedModel(self.loaded.to(device))

    def __repr__(self) -> str:
        channels, height, width = self.shape
        images = f"{width}x{height} {channel_text(channels)} images"
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
        condition: Condition | None = None,
        temperature: float = 1.0,
        prior: Prior | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Images:
        """Generate `n` new images from draws of a prior.

        The same seed gives the same images on the same kind of device, and more of them as `n` grows.

        Args:
            n: number of images.
            seed: random seed.
            label: a class. By default a conditional model goes through all classes in turn. A model trained
                without labels takes one if its fitted prior has classes.
            condition: the conditions of all images, {"age": 30} or "age=30,smiling=1"; columns that are not
                given are at their average. By default those of training images in turn.
            temperature: scale of the latent noise; below 1: more typical, less varied.
            prior: "fitted" or "model" (the model's own); None for the fitted one if there is one.
            steps: of the sampler of flow matching, 20 by default; more are slower and more accurate.
            guidance: for flow matching, by groups of similar images, 2 by default, or by conditions, 1, none,
                by default; higher: images more typical of them, less varied.

        Raises:
            UserError: an unknown class or condition, a prior that the model does not have, or `steps` or
                `guidance` for a prior that has none.
        """
        batches = arrays.generate(
            self.loaded,
            check_count(n, "n", 0),
            seed=seed,
            label=chosen_label(self.loaded, label, condition),
            temperature=temperature,
            prior=prior,
            steps=steps,
            guidance=guidance,
        )
        channels, height, width = self.shape
        images = np.concatenate(
            [np.zeros((0, height, width, channels), np.uint8), *(part.images for part in batches)]
        )
        return images.view(ImageArray)

    def sample_labels(
        self, n: int, label: str | int | None = None, condition: Condition | None = None
    ) -> list[str] | None:
        """The class names of the images that `sample` generates, or their conditions in up to four columns;
        None without either."""
        return arrays.sample_class_names(self.loaded, n, chosen_label(self.loaded, label, condition))

    def encode(self, images: Any, labels: Labels | None = None) -> Latents:
        """Encode images [N, H, W, C] to the means of q(z | x), [N, D]."""
        return arrays.encode(self.loaded, images, labels)

    def decode(self, z: Latents, labels: Labels | None = None) -> Images:
        """Decode latents [N, D] to images: the location of p(x | z), clipped to [0, 1]."""
        return arrays.decode(self.loaded, z, labels).view(ImageArray)

    def reconstruct(self, images: Any, labels: Labels | None = None) -> Images:
        """Encode and decode images: the location of p(x | z) at the mean of q(z | x)."""
        return self.decode(self.encode(images, labels), labels)

    def interpolate(
        self,
        image_a: Any,
        image_b: Any,
        *,
        steps: int = 9,
        how: Literal["spherical", "linear"] = "spherical",
        label: str | int | None = None,
        condition: Condition | None = None,
    ) -> Images:
        """Decode `steps` latents between those of two images; both ends are reconstructions.

        Args:
            image_a: [H, W, C], or [H, W] if gray; or the path of an image file.
            image_b: likewise.
            steps: number of images, both ends included.
            how: "spherical" keeps the distance from the origin at which latents lie, "linear" does not.
            label: the class of all images in a conditional model; for two Paths, None is their folder's name.
            condition: likewise in a model with conditions; for two Paths in the training folder, None takes
                them from its table, and goes from those of one to those of the other.

        Raises:
            UserError: images of another shape, or no class where the model needs one.
        """
        chosen = chosen_label(self.loaded, label, condition)
        return arrays.interpolate_images(self.loaded, image_a, image_b, steps, how, chosen).view(ImageArray)

    def log_likelihood(
        self, images: Any, labels: Labels | None = None, *, samples: SupportsIndex = 1000, seed: int = 0
    ) -> Float[np.ndarray, " N"]:
        """Estimate log p(x) in nats by importance sampling: a lower bound that rises with `samples`.

        Raises:
            UserError: the model has no likelihood (its posterior is a point).
        """
        require_density(self.model)
        batches = arrays.batches(self.loaded, images, labels)
        return log_likelihoods(self.model, batches, check_count(samples), seed)[0].float().numpy()

    def latents(
        self, data: Any = None, *, out: str | Path | None = None, quiet: bool = False
    ) -> "pd.DataFrame":
        """Encode every image of a data set into a table.

        Args:
            data: what `train` takes; None for the training data.
            out: a new .csv, .npz or .parquet file to write it to as well.
            quiet: print nothing.

        Returns:
            A row per image, sorted by path, with columns `file` (its path in the folder, or split/row of an
            array), `label` if there are classes, and z1 ... zD (a spatial latent is flattened).

        Raises:
            UserError: images of another shape, unknown classes, or a file that cannot be written.
        """
        return tables.latents(self.loaded, data, None if out is None else Path(out), quiet)

    def traverse(
        self,
        *,
        rows: int = 10,
        columns: int = 11,
        label: str | int | None = None,
        condition: Condition | None = None,
        quiet: bool = False,
    ) -> Traversal:
        """Show the effect of single latents, the most active first: each row varies one about its mean.

        docs/inspecting.md says what means and standard deviations are used.

        Args:
            rows: number of latents, at most.
            columns: number of images of each; an odd number has the mean in the middle.
            label: in a conditional model the class of all images; None for the first.
            condition: in a model with conditions those of all images; None for the average.
            quiet: print nothing.

        Raises:
            UserError: an unknown class, or no rows or columns.
        """
        chosen = chosen_label(self.loaded, label, condition)
        return traverse.traverse_model(self.loaded, rows, columns, chosen, quiet)

    def rank(
        self,
        data: Any = None,
        *,
        samples: SupportsIndex = RANK_SAMPLES,
        seed: int = 0,
        maps: bool = False,
        out: str | Path | None = None,
        quiet: bool = False,
    ) -> "pd.DataFrame":
        """Sort the images of a data set by log-likelihood, least likely first.

        Simple images are likely whatever they show (Nalisnick et al. 2019, arXiv:1810.09136; Serrà et al.
        2020, arXiv:1909.11480): this finds unusual images, but does not detect simple foreign ones.

        The map of an image shows where it is unlikely: minus log p(x | z) of each pixel at the mean of
        q(z | x), summed over channels and averaged over 3x3 pixels, in nats per pixel. Its threshold is the
        0.99 quantile of the pixels of up to 512 held-out training images.

        Args:
            data: what `train` takes; None for the training data.
            samples: importance samples per image.
            seed: random seed.
            maps: compute the map of every image.
            out: a new .csv file to write it to as well, with a .png of both extremes next to it. With `maps`
                also NAME_maps.png, a picture of the 32 least likely images with their maps, and
                NAME_maps.npz: `maps` float32 [N, H, W] and `files` [N] in the order of the table, and
                `threshold`. It has 4 bytes per pixel.
            quiet: print nothing.

        Returns:
            A row per image with `rank` from 1, `file`, `label` if there are classes, `log_likelihood` in
            nats, and `bits_per_dimension` if the likelihood is one of 256 levels. With `maps` also
            `odd_pixels`, the share of the pixels of its map above the threshold, which is
            `attrs["threshold"]` of the table.

        Raises:
            UserError: no likelihood, images of another shape, unknown classes, an unwritable file, or `maps`
                without the training images.
        """
        path = None if out is None else Path(out)
        return rank(self.loaded, data, check_count(samples), seed, maps, path, quiet)

    def evaluate(
        self,
        data: Any = None,
        *,
        samples: SupportsIndex = 1000,
        new_images: SupportsIndex = DEFAULT_NEW_IMAGES,
        seed: int = 0,
        quiet: bool = False,
    ) -> dict[str, Any]:
        """Evaluate the model on held-out images, and name the command that fixes each problem found.

        The result is also in evaluation.json, see docs/evaluation.md.

        Args:
            data: what `train` takes: its test split, or all of it if it has none. None for the test split of
                the training data, or the validation split if they have none.
            samples: importance samples per image; more give a tighter bound.
            new_images: number of generated images, compared with as many held-out ones, at most half of
                these; at least 50. Memory and time grow with its square: 5,000 take 3 GB.
            seed: random seed.
            quiet: print nothing.

        Raises:
            UserError: images of another shape, or unknown classes.
        """
        count = check_count(new_images, "new_images", MIN_NEW_IMAGES)
        result = evaluate_model(self.loaded, data, check_count(samples), count, seed, quiet)
        return result.model_dump(mode="json")

    def report(self, *, quiet: bool = False) -> Path:
        """Write report.html, a self-contained summary of the run, and return its path."""
        write_report(self.loaded, quiet)
        return self.run.report

    def fit_prior(self, *, steps: int | None = None, quiet: bool = False) -> dict[str, Any]:
        """Fit a sampling prior to the latents again, and use it if it is better than the model's own.

        Args:
            steps: train the run's flow matching on, to this number of steps in all.
            quiet: print nothing.

        Returns log-densities of validation encodings, in nats per image, under every candidate.

        Raises:
            UserError: the training images have moved or changed, or `steps` for a run without flow matching.
        """
        if steps is not None:
            train_second_stage(self.run, self.config, steps, quiet)
        record = refit_prior(self.loaded, quiet)
        self.loaded = replace(self.loaded)  # which reads the prior from its file
        return record

    def export(
        self,
        to: Literal["onnx", "web", "diffusers"] = "onnx",
        out: str | Path | None = None,
        *,
        runtime: str | Path | None = None,
        quiet: bool = False,
    ) -> Path:
        """Write the model to a new folder for use without vaekit and torch; see docs/export.md.

        "onnx" writes encoder.onnx, decoder.onnx and prior.onnx, which take and return uint8 pixels, and a
        script that uses them. The prior is the fitted one if there is one. "web" writes a page for any web
        server, in which a browser draws and decodes images. The outputs of every ONNX file are compared with
        those of torch, and the largest difference is printed. "diffusers" writes a folder that
        `AutoencoderKL.from_pretrained` reads (docs/diffusers.md).

        Args:
            to: the format, "onnx", "web" or "diffusers".
            out: a new folder; by default one in the run.
            runtime: for "web", the folder of the unpacked npm package onnxruntime-web.
            quiet: print nothing.

        Returns the folder.

        Raises:
            UserError: a package of the extra `export` or the runtime is missing, the folder exists, a custom
                network cannot be exported, or the difference from torch is more than 1e-4.
        """
        return export_model(self.loaded, to, out, quiet, runtime)

    def save(self, folder: str | Path) -> None:
        """Write the model to a new folder that `load` reads. Raises a UserError if the folder exists."""
        copy_run(self.run, Path(folder).expanduser())

    def publish(self, *, to: str | Path, license: str | None = None, quiet: bool = False) -> str:
        """Publish the model: its files, new images and a model card, to a folder or the Hugging Face Hub.

        What is private is left out: paths, names of image files, and the images. docs/publishing.md lists
        what the files contain. No file is replaced.

        Args:
            to: a new folder, which is a Path or a text that ends with a slash or begins with /, ./, ../ or ~;
                or a repository, "USER/NAME" or "hf:USER/NAME", which is made, public, if it does not exist.
            license: identifier of the licence, such as "apache-2.0"; required.
            quiet: print nothing.

        Returns the folder, or the address of the model's page.

        Raises:
            UserError: no licence, an existing folder, files that exist in the repository, a custom encoder or
                decoder, or no permission.
            OSError: the Hub cannot be reached.
        """
        return hub.publish(self.loaded, to, license, quiet)
