"""An evaluation for the screen."""

from typing import TYPE_CHECKING, Any

from vaekit.evaluation.likelihood import VARIED
from vaekit.evaluation.memorization import ENOUGH

if TYPE_CHECKING:
    import pandas as pd


Row = tuple[str, ...]
"""A name, and a text; or the cells of a table's columns. Without a name it belongs to the row above it."""


FEW = 3
"""Effective samples of a middling image below which its bound is called loose."""


NO_BITS = {
    "density": "a density of pixels that run from 0 to 1, not a probability of levels",
    "cross-entropy": "a cross-entropy of pixels between black and white, not their likelihood: "
    "--likelihood.kind gaussian has one",
    "probability": "a probability of black and white pixels, not of 256 levels",
}
"""Why there are no bits/dim, by what p(x | z) is."""


def lines(found: dict[str, Any]) -> list[str]:
    """The content of evaluation.json, a line each."""
    return [line for title, rows in sections(found).items() if rows for line in (title, *_table(rows))]


def sections(found: dict[str, Any]) -> dict[str, list[Row]]:
    """The content of evaluation.json: titles, and under each its rows."""
    split = "" if found["side"] == "all" else f", {found['side']} side"
    return {
        f"Likelihood of {found['images']:,} images of {found['data']}{split}": _likelihood(found),
        "Reconstructions of the same": _reconstructions(found),
        **_fidelity(found),
        "Copies of training images": _memorisation(found),
        "Diagnosis": _diagnosis(found),
    }


def _table(rows: list[Row]) -> list[str]:
    width = max(len(name) for name, *_ in rows)
    cell = max((len(cell) for _, *cells in rows if len(cells) > 1 for cell in cells), default=0)
    lines = [
        (name, cells[0] if len(cells) == 1 else "  ".join(f"{one:>{cell}}" for one in cells)) for name, *cells in rows
    ]
    return [f"  {name:<{width}}  {text}" for name, text in lines]


def _likelihood(found: dict[str, Any]) -> list[Row]:
    units = found["active_units"]
    told = f"not told: it takes {VARIED} images" if units is None else f"{units} of {found['latents']}"
    active = ("active latents", told)
    if found["nll"] is None:
        return [("NLL", f"none: {found['why']['nll']}"), active]
    error, bits = found["nll_standard_error"], found["bits_per_dimension"]
    effective, per_latent = found["effective_sample_size"], found["kl_per_latent"]
    rows: list[Row] = [
        (
            "NLL",
            f"{found['nll']:.2f}{f' +- {error:.2f}' if error else ''} nats per image"
            f"{'' if bits is None else f' = {bits:.4f} bits/dim'}, {found['samples']:,} importance samples each",
        ),
        ("ELBO", f"{found['elbo']:.2f} = -(reconstruction {found['reconstruction']:.2f} + KL {found['kl']:z.2f})"),
        ("bound by samples", "   ".join(f"{int(k):,}: {bound:.2f}" for k, bound in found["bounds"].items())),
        (
            "effective samples",
            f"mean {effective['mean']:.1f}, median {effective['median']:.1f}, smallest {effective['smallest']:.1f} "
            f"of {found['samples']:,}",
        ),
    ]
    if effective["median"] < FEW and found["samples"] > 1:
        rows.append(
            (
                "",
                f"so few that the true NLL may be far below: --samples {10 * found['samples']}, or a model that has "
                "learned longer, comes nearer to it",
            )
        )
    rows.append(active)
    if bits is None:
        rows.append(("no bits/dim", NO_BITS[found["measure"]]))
    if not per_latent:
        said = "none: with these parts the KL is not a sum over latents in closed form"
    else:
        largest = sorted(per_latent, reverse=True)
        shown = " ".join(f"{value:z.2f}" for value in largest[:10])
        said = f"{shown}{' ...' if len(largest) > 10 else ''} (largest first, all in evaluation.json)"
    return [*rows, ("KL per latent", said)]


def _reconstructions(found: dict[str, Any]) -> list[Row]:
    made = found.get("reconstructions")
    if not made:
        return []

    def figure(name: str, form: str) -> str:
        error = made[f"{name}_standard_error"]
        return f"{made[name]:{form}}" + (f" +- {error:{form}}" if error is not None else "")

    ssim = "none: for images of at least 11 pixels a side" if made["ssim"] is None else figure("ssim", ".3f")
    return [("PSNR", f"{figure('psnr', '.2f')} dB"), ("SSIM", ssim), ("MSE", f"{figure('mse', '.5f')} (pixels 0 to 1)")]


def _fidelity(found: dict[str, Any]) -> dict[str, list[Row]]:
    """A table whose columns are the figures, each over its confidence interval."""
    if "fidelity" not in found:
        return {}
    judged = found["fidelity"]
    if judged is None:
        return {"New images beside held-out ones": [("not compared", found["why"]["fidelity"])]}
    columns = ("precision", "recall", "density", "coverage", "kid", "fid")
    names = {"kid": "KID x 1000", "fid": "FID" if judged["standard"] else "Frechet*"}
    rows: list[Row] = [("", *(names.get(name, name) for name in columns))]
    above = judged["above_own_prior"]
    for name, figures in (judged["sets"] | ({"new, above own prior's": above} if above else {})).items():
        ends = [
            [(1000 if column == "kid" else 1) * figures[column][end] for end in ("value", "low", "high")]
            for column in columns
        ]
        rows.append((name, *(_figure(value) for value, _, _ in ends)))
        rows.append(("", *(f"{_figure(low)} to {_figure(high)}" for _, low, high in ends)))
    star = "" if judged["standard"] else "; * not the FID or KID of publications, which are Inception's"
    seen = f"{judged['extractor']}, {judged['resize']}"
    return {f"{judged['images']:,} images each beside as many held-out ones, 95 % intervals below: {seen}{star}": rows}


def _figure(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    size = abs(value)
    return f"{value:z.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _memorisation(found: dict[str, Any]) -> list[Row]:
    memory = found.get("memorisation")
    if not memory:
        return []
    return [
        (
            "nearest training image",
            f"{memory['nearest_to_new']:.1f} levels from a new image, {memory['nearest_to_held_out']:.1f} from a "
            "held-out one (medians, root mean square)",
        ),
        (
            "suspiciously near",
            f"not told: it takes {ENOUGH} images compared (--new-images), half of the held-out ones at most"
            if memory["copied"] is None
            else f"{memory['copied']:.1%} of new images, where 1.0% is expected without copies, and up to "
            f"{memory['copied_by_chance']:.1%} by chance",
        ),
        ("held-out duplicates", f"{memory['duplicates']:.1%} of {memory['images']:,} stand among the training images"),
    ]


def _diagnosis(found: dict[str, Any]) -> list[Row]:
    if "diagnosis" not in found:
        return []
    if not found["diagnosis"]:
        return [("healthy", "none of the faults that are looked for was found")]
    rows: list[Row] = []
    for one in found["diagnosis"]:
        rows += [(one["name"], one["sentence"]), ("", f"-> {one['remedy']}")]
    return rows


def ranking_lines(table: "pd.DataFrame", samples: int) -> list[str]:
    """What a ranking is, and its odd end, a line each."""
    nats = table["log_likelihood"]
    bits = "bits_per_dimension" in table
    found = [f"{len(table):,} images by log p(x), odd ones first, {samples:,} importance samples each"]
    found += [f"  {value:12,.1f} nats  {file}" for file, value in zip(table["file"][:5], nats[:5], strict=True)]
    found.append(f"  {nats.median():12,.1f} nats  the median image")
    if not bits:
        found.append(f"  no bits/dim: {NO_BITS[table.attrs['measure']]}")
    said = "Simple images tend to rank as likely and busy ones as odd, whatever they show; "
    return [*found, f"{said}of a model that has learned little, the order says little."]
