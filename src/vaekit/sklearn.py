"""A VAE as a scikit-learn transformer: images in, posterior means out, in pipelines and searches.

from vaekit.sklearn import VAETransformer
pipeline = make_pipeline(VAETransformer(latents=16), LogisticRegression()).fit(images, labels)
"""

import math
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import nn

from vaekit.api import load, train
from vaekit.data.sources.pixels import to_uint8_images
from vaekit.errors import UserError
from vaekit.training.artifacts import SamplingPrior

OVERSHOOT = 0.5
"""Floats outside 0 to 1 by no more than this are clipped in X after `fit`."""
FEW_OUTSIDE = 0.05
"""So are any values if no larger share is outside: the highest value of a pixel in the rows that a scaler was
fitted to may be low, while images of 0 to 255 have many values above 1."""
DARK = 64
"""Levels, of 255, up to which images are too dark to be right."""
ROUNDING = 1e-6
"""Floats this little outside [0, 1], as scaling leaves them, count as 0 and 1."""
PARAMETERS = {name: name for name in ("preset", "epochs", "latents", "out")}
PARAMETERS |= {"seed": "random_state", "quiet": "verbose"}
"""Settings of `vaekit.train` that are parameters of the transformer, and their names there."""


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A variational autoencoder that maps N images to float32 [N, D], the means of its posteriors q(z | x).

    X is uint8 [N, H, W] or [N, H, W, C], or floats from 0 to 1 of such a shape, or, with `image_shape`, rows
    [N, F] of H * W * C features. A tenth of X is held out to find the best epoch (`settings={"validation":
    0.2}`: another share). Training uses no labels; `y` is ignored everywhere. The X of every fit stays in
    vaekit's cache, which `vaekit doctor --clear-cache` empties.

    Args:
        preset: a name of `vaekit presets`; None chooses one with a latent vector by the images: "classic" for
            gray ones, "laplace" for colour.
        epochs: passes over X.
        latents: D, or "4x7x7" and the like for a spatial latent, which is returned as a row; None for the
            preset's.
        random_state: seed of weights, order and noise: an int, a RandomState, or None for another one in
            every fit.
        image_shape: (H, W) or (H, W, C) of the images that are the rows of a 2-D X.
        samples: importance samples per image for `score_samples` and `score`.
        settings: other settings of `vaekit.train`, as {"batch_size": 64, "objective": {"beta": 4}}.
        out: a new run folder to keep, with pictures, loss graph and report; None for a temporary one without
            them, which is deleted with the model. A search fits many models and needs None.
        verbose: show what `vaekit.train` prints.

    Attributes:
        vae_: the trained model (`vaekit.TrainedModel`), for new images and everything else.
        n_latents_: D.
        n_features_in_: H * W * C.
        feature_names_in_: names of the columns of X, if it was a DataFrame.
        image_shape_: (H, W, C).
    """

    def __init__(
        self,
        preset: str | None = None,
        *,
        epochs: int = 50,
        latents: int | str | None = None,
        random_state: Any = 0,
        image_shape: tuple[int, ...] | None = None,
        samples: int = 100,
        settings: Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.preset = preset
        self.epochs = epochs
        self.latents = latents
        self.random_state = random_state
        self.image_shape = image_shape
        self.samples = samples
        self.settings = settings
        self.out = out
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on X.

        Raises:
            UserError: invalid settings or values; it is a ValueError.
        """
        settings = self._settings()
        X = self._checked(X, fitting=True)
        images = self._images(X, self._shape(X))
        if (high := int(images.max(initial=0))) < DARK:
            text = (
                f"No value of X is above {high} of 255, so the images are nearly black: X has another range"
            )
            warnings.warn(f"{text}. Use X / {high or 1}.", UserWarning, stacklevel=2)
        settings.setdefault("preset", "classic" if images.shape[3] == 1 else "laplace")
        if self.out is not None:
            vae = train(images, out=self.out, quiet=not self.verbose, **settings)
        else:
            with _temporary_folder() as folder:
                settings |= {"report": False, "callbacks": [SamplingPrior()]}  # nobody sees its pictures
                vae = train(images, out=folder / "run", quiet=not self.verbose, **settings)
            shutil.rmtree(vae.run.checkpoints, ignore_errors=True)
            weakref.finalize(vae, _delete, folder, os.getpid())
        self.vae_ = vae
        self.n_features_in_ = math.prod(vae.shape)
        self.n_latents_ = vae.model.latents
        channels, height, width = vae.shape
        self.image_shape_ = (height, width, channels)
        self._layout = X.shape[1:], X.dtype == np.uint8
        self._networks = {name: part for name, part in settings.items() if isinstance(part, nn.Module)}
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "N D"]:
        """The means of q(z | x)."""
        check_is_fitted(self, "vae_")
        return self.vae_.encode(self._known(X)).reshape(-1, self.n_latents_)

    def inverse_transform(self, X: Float[np.ndarray, "N D"]) -> NDArray[Any]:
        """The images at latents [N, D], as in the X of `fit`: uint8, or float32 from 0 to 1."""
        check_is_fitted(self, "vae_")
        z = check_array(X, dtype=np.float32, ensure_min_samples=0)
        if z.shape[1] != self.n_latents_:
            raise UserError(f"Latents have shape {list(z.shape)}, but this model has [N, {self.n_latents_}].")
        shape, as_levels = self._layout
        images = self.vae_.decode(z.reshape(-1, *self.vae_.model.latent_shape)).reshape(-1, *shape)
        return images if as_levels else images.astype(np.float32) / 255

    def score_samples(self, X: Any) -> Float[np.ndarray, " N"]:
        """log p(x) of every image, in nats, by importance sampling: a lower bound that rises with `samples`.

        The noise depends on `random_state` and the position in X, so the same X has the same scores. Scores
        are only comparable between models of one likelihood: that of gray pixels under a Bernoulli (preset
        "classic") is a cross-entropy, that of 256 levels a probability, that of continuous values a density.

        Raises:
            UserError: the model has no likelihood (its posterior is a point).
        """
        check_is_fitted(self, "vae_")
        images, seed = self._known(X), self.vae_.config.training.seed
        return self.vae_.log_likelihood(images, samples=self.samples, seed=seed)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`, which a search maximizes."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    # --- The interface of scikit-learn ---

    @property
    def _n_features_out(self) -> int:
        return int(self.n_latents_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """With the model as the files that `TrainedModel.save` writes."""
        state: dict[str, Any] = super().__getstate__()
        if (vae := state.get("vae_")) is None:
            return state
        if not vae.run.weights.is_file():
            message = f"{vae.run.folder} no longer exists, so the model cannot be copied."
            raise UserError(message, "Fit it again.")
        with tempfile.TemporaryDirectory(prefix="vaekit-") as folder:
            vae.save(Path(folder) / "run")
            files = {path.name: path.read_bytes() for path in (Path(folder) / "run").iterdir()}
        return state | {"vae_": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (files := state.get("vae_")) is not None:
            with _temporary_folder() as folder:
                for name, content in files.items():
                    (folder / Path(name).name).write_bytes(content)
                vae = load(folder, **state["_networks"])
            weakref.finalize(vae, _delete, folder, os.getpid())
            state = state | {"vae_": vae}
        super().__setstate__(state)

    # --- From parameters and X to arguments of `train` ---

    def _settings(self) -> dict[str, Any]:
        """The keyword arguments of `vaekit.train`, but for the run folder."""
        given = {} if self.settings is None else self.settings
        if not isinstance(given, Mapping):
            raise UserError("settings must be a dictionary such as {'batch_size': 64}.", f"Got {given!r}.")
        for name, called in PARAMETERS.items():
            if name in given:
                raise UserError(f"{name!r} is a parameter of its own.", f"Use VAETransformer({called}=...).")
        for name in ("conditional", "condition", "resume"):
            if given.get(name):
                message = f"{name!r} is not supported, since fit trains a new model without labels."
                raise UserError(message, "Use vaekit.train.")
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        parameters = {name: getattr(self, name) for name in ("preset", "epochs", "latents")}
        chosen = {name: value for name, value in parameters.items() if value is not None}
        return {**given, **chosen, "seed": int(seed)}

    def _checked(self, X: Any, fitting: bool) -> NDArray[Any]:
        """X as an array of finite numbers; rows have the width and names that they had in `fit`."""
        count = 2 if fitting else 0
        array = check_array(X, allow_nd=True, ensure_min_samples=count, estimator=self, input_name="X")
        if fitting or array.ndim == 2:
            validate_data(self, X, reset=fitting, skip_check_array=True)
        return np.asarray(array)

    def _shape(self, X: NDArray[Any]) -> tuple[int, ...]:
        """(H, W) or (H, W, C) of the images of the X to fit."""
        given = self.image_shape
        if given is None:
            if X.ndim > 2:
                return X.shape[1:]
            width = math.isqrt(X.shape[1])
            example = f"({width}, {width})" if width * width == X.shape[1] else "(H, W) or (H, W, C)"
            hint = f"Give the shape of an image: image_shape={example}."
            raise UserError(f"X has rows of {X.shape[1]} features.", hint)
        try:
            shape = tuple(int(size) for size in given)
        except (TypeError, ValueError):
            shape = ()
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise UserError(f"image_shape must be (H, W) or (H, W, C), in pixels (got {given!r}).")
        if X.ndim == 2 and math.prod(shape) != X.shape[1]:
            features = f"image_shape {shape} has {math.prod(shape)} features"
            raise UserError(f"{features}, but the rows of X have {X.shape[1]}.")
        if X.ndim > 2 and X.shape[1:] != shape:
            message = f"X has images {list(X.shape[1:])}, but image_shape is {list(shape)}."
            raise UserError(message, "Omit image_shape.")
        return shape

    def _known(self, X: Any) -> NDArray[np.uint8]:
        """Images [N, H, W, C] of the shape that it was fitted to; of floats, what a scaler that was fitted to
        other rows leaves outside 0 to 1 is clipped."""
        array = self._checked(X, fitting=False)
        if array.dtype.kind == "f" and array.size:
            low, high = float(array.min()), float(array.max())
            beyond = max(-low, high - 1)
            few = ((array < 0) | (array > 1)).mean() <= FEW_OUTSIDE
            if beyond > ROUNDING and (beyond <= OVERSHOOT or few) and np.isfinite(array).all():
                text = f"The values of X range from {low:.3g} to {high:.3g} and are clipped to 0 to 1."
                warnings.warn(text, UserWarning, stacklevel=3)
                array = array.clip(0, 1)
        return self._images(array, self.image_shape_)

    def _images(self, X: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Pixels [N, H, W, C] of checked images or rows; `shape` is that of an image that is a row."""
        if X.dtype.kind == "f" and X.size:
            low, high = float(X.min()), float(X.max())
            if low >= -ROUNDING and 1 + ROUNDING < high <= 255 + ROUNDING:
                raise UserError(
                    f"The values of X range from {low:.3g} to {high:.3g}, but pixels range from 0 to 1.",
                    "Divide by the largest possible value: X / 255 for 256 levels, X / 16 for load_digits.",
                )
            if low >= -ROUNDING and high <= 1 + ROUNDING:
                X = X.clip(0, 1)
        return to_uint8_images(X.reshape(len(X), *shape) if X.ndim == 2 else X, "X")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that is deleted if the block fails."""
    folder = Path(tempfile.mkdtemp(prefix="vaekit-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _delete(folder: Path, process: int) -> None:
    """Delete a model's folder, when the model is garbage-collected or the process ends."""
    if os.getpid() == process:  # a forked process has a copy of the model, and its folder is not its own
        shutil.rmtree(folder, ignore_errors=True)
