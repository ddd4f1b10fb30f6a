"""Evaluations and rankings as text."""

import shlex
import textwrap
from typing import TYPE_CHECKING

from vaekit.errors import setting, spelled
from vaekit.evaluation.likelihood import MIN_IMAGES_FOR_ACTIVE_UNITS
from vaekit.evaluation.maps import THRESHOLD_QUANTILE
from vaekit.evaluation.memorization import MIN_IMAGES_FOR_COPIES
from vaekit.evaluation.reconstruction import SSIM_WINDOW
from vaekit.evaluation.results import EvaluationResult, LikelihoodKind, SetMetrics

if TYPE_CHECKING:
    import pandas as pd

Row = tuple[str, ...]
"""A name and a text, or a name and the cells of a table. Without a name it belongs to the row above it."""
MIN_EFFECTIVE_SAMPLES = 3
"""Median number of effective samples below which the bound is reported as loose."""
SET_NAMES = {
    "new": "new images",
    "model_prior": "model's own prior",
    "other_held_out": "other held-out images",
    "reconstructed": "held-out, reconstructed",
    "training": "training images",
}
NO_BITS: dict[LikelihoodKind, str] = {
    "density": "p(x | z) is a density over [0, 1], not a probability of 256 levels",
    "cross-entropy": "p(x | z) is a cross-entropy of gray pixels, not their likelihood; "
    f"{setting('likelihood.kind', 'gaussian')} has one",
    "probability": "p(x | z) is a probability of black and white pixels, not of 256 levels",
}
"""Why there are no bits/dim, by the kind of p(x | z)."""


def format_evaluation(result: EvaluationResult, width: int) -> list[str]:
    """An evaluation for the screen: the diagnosis, then tables.

    Lines have at most `width` characters, unless a word or a command in Python is longer.
    """
    split = "" if result.split == "all" else f" ({result.split} split)"
    lines = _wrap(f"Evaluation on {result.images:,} images of {result.data}{split}", width, indent="  ")
    lines += ["Diagnosis"] if result.diagnosis else ["Diagnosis", "  No problems found."]
    for finding in result.diagnosis:
        lines += _wrap(f"{finding.name.capitalize()}. {finding.message}", width, "  ", "    ")
        lines += _wrap_command(finding.fix, width, "    Fix: ", "      ")
    return lines + format_tables(result, width)


def format_tables(result: EvaluationResult, width: int) -> list[str]:
    """Everything in an evaluation but the diagnosis, as tables of `width` characters."""
    return [line for title, rows in sections(result).items() for line in (title, *_table(rows, width))]


def sections(result: EvaluationResult) -> dict[str, list[Row]]:
    """Everything in an evaluation but the diagnosis: titles, and the rows under each."""
    parts = {
        "Sample quality": _fidelity(result),
        "Memorization": _memorization(result),
        "Reconstruction quality": _reconstruction(result),
        "Likelihood": _likelihood(result),
    }
    return {title: [tuple(map(spelled, row)) for row in rows] for title, rows in parts.items() if rows}


def _wrap(text: str, width: int, first: str = "", indent: str = "") -> list[str]:
    """The lines of a text: `first` opens the first, `indent` the others. Non-breaking spaces do not break."""
    width = max(width, len(indent) + 20)
    wrapper = textwrap.TextWrapper(width, first, indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in wrapper.wrap(text)]


def _wrap_command(command: str, width: int, first: str, indent: str) -> list[str]:
    """A command line that can be pasted whole; one in Python stays on its line."""
    if not command.startswith("vaekit "):
        return [first + command]
    arguments = [shlex.quote(word).replace(" ", "\u00a0") for word in shlex.split(command)]
    lines = _wrap(" ".join(arguments), width - len(" \\"), first, indent)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _table(rows: list[Row], width: int) -> list[str]:
    """Rows in columns. Columns that do not fit continue in a second block below."""
    name_width = max(len(name) for name, *_ in rows)
    indent = " " * (name_width + 4)
    table = [row for row in rows if len(row) > 2]
    cell_width = max((len(cell) for _, *cells in table for cell in cells), default=0) + 2
    fitting = max(1, (width - len(indent) + 2) // cell_width)
    lines: list[str] = []
    for start in range(1, len(table[0]) if table else 0, fitting):
        for name, *cells in table:
            block = "".join(f"{cell:>{cell_width}}" for cell in cells[start - 1 : start - 1 + fitting])
            lines.append(f"  {name:<{name_width}}{block}")
    for name, text in (row for row in rows if len(row) == 2):
        lines += _wrap(text, width, f"  {name:<{name_width}}  ", indent)
    return lines


def _fidelity(result: EvaluationResult) -> list[Row]:
    """A table whose columns are the metrics, each with its confidence interval below."""
    fidelity = result.fidelity
    if fidelity is None:
        return [("n/a", result.unavailable["fidelity"])]
    names = {"kid": "KID x 1000", "fid": "FID" if fidelity.standard else "Frechet"}
    rows: list[Row] = [("", *(names.get(name, name) for name in SetMetrics.model_fields))]
    for name, metrics in fidelity.sets.items():
        rows += _metrics_rows(SET_NAMES[name], metrics)
    if fidelity.fitted_prior_gain is not None:
        rows += _metrics_rows("fitted minus own prior", fidelity.fitted_prior_gain)
    count = f"{fidelity.images:,}"
    note = "" if fidelity.standard else ". Not comparable with published FID or KID."
    return [
        *rows,
        ("compared", f"{count} images per set with {count} held-out ones; 95 % intervals"),
        ("features", f"{fidelity.extractor}, {fidelity.resize}{note}"),
    ]


def _metrics_rows(name: str, metrics: SetMetrics) -> list[Row]:
    values, intervals = [], []
    for metric, interval in metrics:
        scale = 1000 if metric == "kid" else 1
        values.append(_format_number(scale * interval.value))
        intervals.append(f"{_format_number(scale * interval.low)} to {_format_number(scale * interval.high)}")
    return [(name, *values), ("", *intervals)]


def _format_number(value: float) -> str:
    """Three digits, or all before the point."""
    size = abs(value)
    return f"{value:z.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _memorization(result: EvaluationResult) -> list[Row]:
    memorization = result.memorization
    if memorization is None:
        return []
    if memorization.copied is not None:
        copies = (
            f"{memorization.copied:.1%} of new images ({memorization.copied_expected or 0.01:.1%} expected "
            f"without copies, up to {memorization.copied_by_chance:.1%} by chance)"
        )
    elif result.images < 2 * MIN_IMAGES_FOR_COPIES:
        copies = f"n/a (needs at least {2 * MIN_IMAGES_FOR_COPIES} held-out images)"
    else:
        copies = f"n/a (needs at least {setting('new_images', MIN_IMAGES_FOR_COPIES)})"
    distances = (
        f"median RMS distance {memorization.nearest_to_new:.1f} from new images, "
        f"{memorization.nearest_to_held_out:.1f} from held-out ones (of 255)"
    )
    count = memorization.images
    duplicates = f"{round(memorization.duplicates * count):,} of {count:,} held-out images"
    return [
        ("nearest training image", distances),
        ("suspiciously near", copies),
        ("duplicates", f"{duplicates} are also in the training set"),
    ]


def _reconstruction(result: EvaluationResult) -> list[Row]:
    def mean(name: str, form: str) -> str:
        value = getattr(result.reconstruction, name)
        error = getattr(result.reconstruction, f"{name}_standard_error")
        return f"{value:{form}}" + (f" +- {error:{form}}" if error is not None else "")

    small = f"n/a (needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels)"
    no_ssim = result.unavailable.get("ssim", small)
    return [
        ("PSNR", f"{mean('psnr', '.2f')} dB"),
        ("SSIM", no_ssim if result.reconstruction.ssim is None else mean("ssim", ".3f")),
        ("MSE", f"{mean('mse', '.5f')} (pixels from 0 to 1)"),
    ]


def _likelihood(result: EvaluationResult) -> list[Row]:
    likelihood, latents = result.likelihood, result.latents
    too_few = f"n/a (needs at least {MIN_IMAGES_FOR_ACTIVE_UNITS} images)"
    active = ("active latents", too_few if latents.active is None else f"{latents.active} of {latents.total}")
    if likelihood is None:
        return [("NLL", f"n/a: {result.unavailable['likelihood']}"), active]
    error, bits = likelihood.nll_standard_error, likelihood.bits_per_dimension
    effective, count = likelihood.effective_sample_size, f"{result.samples:,}"
    nll = f"{likelihood.nll:.2f}{f' +- {error:.2f}' if error else ''} nats per image"
    nll += "" if bits is None else f" = {bits:.4f} bits/dim"
    terms = f"reconstruction {likelihood.reconstruction:.2f} + KL {likelihood.kl:z.2f}"
    bounds = "   ".join(f"{k:,}:\u00a0{bound:.2f}" for k, bound in likelihood.bounds.items())
    sizes = f"mean {effective.mean:.1f}, median {effective.median:.1f}, min {effective.min:.1f}"
    rows: list[Row] = [
        ("NLL", f"{nll} ({count} importance samples)"),
        ("ELBO", f"{likelihood.elbo:.2f} = -({terms})"),
        ("bound by samples", bounds),
        ("effective samples", f"{sizes} of {count}"),
    ]
    if effective.median < MIN_EFFECTIVE_SAMPLES and result.samples > 1:
        more = setting("samples", 10 * result.samples)
        text = f"Too few effective samples: the true NLL may be much lower. Use {more} or train longer."
        rows.append(("", text))
    if (gap := result.prior_gap) and gap.elbo is not None:
        spread = f" +- {gap.gain_standard_error:.2f}" if gap.gain_standard_error else ""
        per_dimension = f" = {gap.bits_per_dimension:.4f} bits/dim" if gap.bits_per_dimension else ""
        rows.append(("ELBO, fitted prior", f"{gap.elbo:.2f}{spread}{per_dimension}"))
    if bits is None:
        rows.append(("bits/dim", f"n/a: {NO_BITS[likelihood.kind]}"))
    return [*rows, active, ("KL per latent", _format_kl(latents.kl))]


def _format_kl(kl: list[float] | None) -> str:
    if not kl:
        return "n/a (for these components it has no closed form)"
    largest = " ".join(f"{value:z.2f}" for value in sorted(kl, reverse=True)[:10])
    return f"{largest}{' ...' if len(kl) > 10 else ''} (largest first; all in evaluation.json)"


def format_ranking(table: "pd.DataFrame", samples: int, width: int) -> list[str]:
    """A ranking for the screen: its least likely images, and the meaning of the order."""
    nats = table["log_likelihood"]
    lines = [f"{len(table):,} images by log p(x), least likely first ({samples:,} importance samples each)"]
    lines += [f"  {value:12,.1f} nats  {file}" for file, value in zip(table["file"][:5], nats, strict=False)]
    lines.append(f"  {nats.median():12,.1f} nats  median")
    if "bits_per_dimension" not in table:
        lines += _wrap(spelled(f"no bits/dim: {NO_BITS[table.attrs['measure']]}"), width, "  ", "    ")
    if "odd_pixels" in table:
        share, threshold = table["odd_pixels"].mean(), table.attrs["threshold"]
        text = f"odd pixels: above {threshold:.3g} nats, as {1 - THRESHOLD_QUANTILE:.0%} of held-out pixels"
        lines += _wrap(f"{text}; {share:.1%} of these", width, "  ", "    ")
    text = (
        "Plain images rank as likely and detailed ones as unlikely, whatever they show. With an "
        "undertrained model the order means little."
    )
    return [*lines, *_wrap(text, width)]
