"""Reconstruction quality, through the mean of q(z | x) and the location of p(x | z)."""

import math
from collections.abc import Iterable

import torch

from vaekit.data.loader import Batch
from vaekit.evaluation.results import Reconstruction
from vaekit.models.vae import VAE

SSIM_WINDOW = 11
"""Width of SSIM's window, in pixels."""


@torch.no_grad()
def reconstruction(model: VAE, batches: Iterable[Batch], ssim: bool = True) -> Reconstruction:
    """Metrics of images from 0 to 1, averaged over images, with the standard error of each average.

    - mse: the mean squared error of the pixels;
    - psnr: -10 log10 of each image's mse, in decibels;
    - ssim: structural similarity, from -1 to 1 (Wang et al. 2004, doi:10.1109/TIP.2003.819861), with a
      Gaussian window of standard deviation 1.5; None unless asked for, and for images smaller than its 11
      pixels.

    `explained_variance` is 1 - mse / variance, with the variance of each pixel over images.
    """
    if ssim := ssim and min(model.shape[1:]) >= SSIM_WINDOW:
        from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds

    errors, similarities = [], []
    sums = squares = torch.zeros(model.shape, dtype=torch.float64)
    for x, y in batches:
        reconstructed = model.reconstruct(x, y)
        errors.append((reconstructed - x).square().mean((1, 2, 3)).cpu().double())
        if ssim:
            _, similarity = structural_similarity_index_measure(
                reconstructed, x, data_range=1.0, reduction="none", return_full_image=True
            )
            edge = SSIM_WINDOW // 2  # the published mean leaves out windows that reach over the image's edge
            similarities.append(similarity[..., edge:-edge, edge:-edge].mean((1, 2, 3)).cpu().double())
        sums, squares = sums + x.cpu().double().sum(0), squares + x.cpu().double().square().sum(0)
    mse = torch.cat(errors)
    variance = (squares / len(mse) - (sums / len(mse)).square()).mean().item()
    metrics = {"mse": mse, "psnr": -10 * mse.clamp(min=1e-12).log10()}
    if similarities:
        metrics["ssim"] = torch.cat(similarities)
    result: dict[str, float | None] = {}
    for name, values in metrics.items():
        error = (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else None
        result |= {name: values.mean().item(), f"{name}_standard_error": error}
    explained = 1 - mse.mean().item() / variance if variance > 0 else None
    return Reconstruction(images=len(mse), explained_variance=explained, **result)
