"""An evaluation for the screen."""

from typing import TYPE_CHECKING

from vaekit.evaluation.likelihood import MIN_IMAGES_FOR_ACTIVE_UNITS
from vaekit.evaluation.memorization import MIN_IMAGES_FOR_COPIES
from vaekit.evaluation.results import EvaluationResult

if TYPE_CHECKING:
    import pandas as pd


Row = tuple[str, ...]
"""A name, and a text; or the cells of a table's columns. Without a name it belongs to the row above it."""


MIN_EFFECTIVE_SAMPLES = 3
"""Effective samples of a middling image below which its bound is called loose."""


SET_NAMES = {
    "new": "new images",
    "model_prior": "of the model's own prior",
    "other_held_out": "other held-out images",
    "reconstructed": "the same through the model",
    "training": "training images",
}
"""The sets of images that are compared."""


NO_BITS = {
    "density": "a density of pixels that run from 0 to 1, not a probability of levels",
    "cross-entropy": "a cross-entropy of pixels between black and white, not their likelihood: "
    "--likelihood.kind gaussian has one",
    "probability": "a probability of black and white pixels, not of 256 levels",
}
"""Why there are no bits/dim, by what p(x | z) is."""


def format_evaluation(result: EvaluationResult) -> list[str]:
    """The content of evaluation.json, a line each."""
    return [line for title, rows in sections(result).items() if rows for line in (title, *_table(rows))]


def sections(result: EvaluationResult) -> dict[str, list[Row]]:
    """The content of evaluation.json: titles, and under each its rows."""
    split = "" if result.split == "all" else f", {result.split} side"
    return {
        f"Likelihood of {result.images:,} images of {result.data}{split}": _likelihood(result),
        "Reconstructions of the same": _reconstructions(result),
        **_fidelity(result),
        "Copies of training images": _memorization(result),
        "Diagnosis": _diagnosis(result),
    }


def _table(rows: list[Row]) -> list[str]:
    width = max(len(name) for name, *_ in rows)
    cell = max((len(cell) for _, *cells in rows if len(cells) > 1 for cell in cells), default=0)
    lines = [
        (name, cells[0] if len(cells) == 1 else "  ".join(f"{one:>{cell}}" for one in cells)) for name, *cells in rows
    ]
    return [f"  {name:<{width}}  {text}" for name, text in lines]


def _likelihood(result: EvaluationResult) -> list[Row]:
    likelihood, units = result.likelihood, result.latents.active
    text = (
        f"not told: it takes {MIN_IMAGES_FOR_ACTIVE_UNITS} images"
        if units is None
        else f"{units} of {result.latents.total}"
    )
    active = ("active latents", text)
    if likelihood is None:
        return [("NLL", f"none: {result.unavailable['likelihood']}"), active]
    error, bits = likelihood.nll_standard_error, likelihood.bits_per_dimension
    effective, per_latent = likelihood.effective_sample_size, result.latents.kl
    rows: list[Row] = [
        (
            "NLL",
            f"{likelihood.nll:.2f}{f' +- {error:.2f}' if error else ''} nats per image"
            f"{'' if bits is None else f' = {bits:.4f} bits/dim'}, {result.samples:,} importance samples each",
        ),
        (
            "ELBO",
            f"{likelihood.elbo:.2f} = -(reconstruction {likelihood.reconstruction:.2f} + KL {likelihood.kl:z.2f})",
        ),
        ("bound by samples", "   ".join(f"{int(k):,}: {bound:.2f}" for k, bound in likelihood.bounds.items())),
        (
            "effective samples",
            f"mean {effective.mean:.1f}, median {effective.median:.1f}, smallest {effective.min:.1f} "
            f"of {result.samples:,}",
        ),
    ]
    if effective.median < MIN_EFFECTIVE_SAMPLES and result.samples > 1:
        rows.append(
            (
                "",
                f"so few that the true NLL may be far below: --samples {10 * result.samples}, or a model that has "
                "learned longer, comes nearer to it",
            )
        )
    rows.append(active)
    if bits is None:
        rows.append(("no bits/dim", NO_BITS[likelihood.kind]))
    if not per_latent:
        text = "none: with these parts the KL is not a sum over latents in closed form"
    else:
        largest = sorted(per_latent, reverse=True)
        shown = " ".join(f"{value:z.2f}" for value in largest[:10])
        text = f"{shown}{' ...' if len(largest) > 10 else ''} (largest first, all in evaluation.json)"
    return [*rows, ("KL per latent", text)]


def _reconstructions(result: EvaluationResult) -> list[Row]:
    reconstruction = result.reconstruction

    def format_mean(name: str, form: str) -> str:
        error = getattr(reconstruction, f"{name}_standard_error")
        return f"{getattr(reconstruction, name):{form}}" + (f" +- {error:{form}}" if error is not None else "")

    ssim = (
        "none: for images of at least 11 pixels a side" if reconstruction.ssim is None else format_mean("ssim", ".3f")
    )
    return [
        ("PSNR", f"{format_mean('psnr', '.2f')} dB"),
        ("SSIM", ssim),
        ("MSE", f"{format_mean('mse', '.5f')} (pixels 0 to 1)"),
    ]


def _fidelity(result: EvaluationResult) -> dict[str, list[Row]]:
    """A table whose columns are the figures, each over its confidence interval."""
    fidelity = result.fidelity
    if fidelity is None:
        return {"New images beside held-out ones": [("not compared", result.unavailable["fidelity"])]}
    columns = ("precision", "recall", "density", "coverage", "kid", "fid")
    names = {"kid": "KID x 1000", "fid": "FID" if fidelity.standard else "Frechet*"}
    rows: list[Row] = [("", *(names.get(name, name) for name in columns))]
    above = fidelity.fitted_prior_gain
    sets = {SET_NAMES[name]: metrics for name, metrics in fidelity.sets.items()}
    if above is not None:
        sets["new, above own prior's"] = above
    for name, metrics in sets.items():
        scales = [1000 if column == "kid" else 1 for column in columns]
        intervals = [getattr(metrics, column) for column in columns]
        ends = [(s * i.value, s * i.low, s * i.high) for s, i in zip(scales, intervals, strict=True)]
        rows.append((name, *(_format_number(value) for value, _, _ in ends)))
        rows.append(("", *(f"{_format_number(low)} to {_format_number(high)}" for _, low, high in ends)))
    star = "" if fidelity.standard else "; * not the FID or KID of publications, which are Inception's"
    seen = f"{fidelity.extractor}, {fidelity.resize}"
    return {f"{fidelity.images:,} images each beside as many held-out ones, 95 % intervals below: {seen}{star}": rows}


def _format_number(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    size = abs(value)
    return f"{value:z.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _memorization(result: EvaluationResult) -> list[Row]:
    memorization = result.memorization
    if not memorization:
        return []
    return [
        (
            "nearest training image",
            f"{memorization.nearest_to_new:.1f} levels from a new image, {memorization.nearest_to_held_out:.1f} "
            "from a held-out one (medians, root mean square)",
        ),
        (
            "suspiciously near",
            f"not told: it takes {MIN_IMAGES_FOR_COPIES} images compared (--new-images), half of the "
            "held-out ones at most"
            if memorization.copied is None
            else f"{memorization.copied:.1%} of new images, where 1.0% is expected without copies, and up to "
            f"{memorization.copied_by_chance:.1%} by chance",
        ),
        (
            "held-out duplicates",
            f"{memorization.duplicates:.1%} of {memorization.images:,} stand among the training images",
        ),
    ]


def _diagnosis(result: EvaluationResult) -> list[Row]:
    if not result.diagnosis:
        return [("healthy", "none of the faults that are looked for was found")]
    rows: list[Row] = []
    for finding in result.diagnosis:
        rows += [(finding.name, finding.message), ("", f"-> {finding.fix}")]
    return rows


def format_ranking(table: "pd.DataFrame", samples: int) -> list[str]:
    """What a ranking is, and its odd end, a line each."""
    nats = table["log_likelihood"]
    bits = "bits_per_dimension" in table
    lines = [f"{len(table):,} images by log p(x), odd ones first, {samples:,} importance samples each"]
    lines += [f"  {value:12,.1f} nats  {file}" for file, value in zip(table["file"][:5], nats[:5], strict=True)]
    lines.append(f"  {nats.median():12,.1f} nats  the median image")
    if not bits:
        lines.append(f"  no bits/dim: {NO_BITS[table.attrs['measure']]}")
    text = "Simple images tend to rank as likely and busy ones as odd, whatever they show; "
    return [*lines, f"{text}of a model that has learned little, the order says little."]
