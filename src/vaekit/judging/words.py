"""An evaluation for the screen."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

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


def sections(found: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The content of evaluation.json: titles, and under each its rows of a name and a text."""
    side = "" if found["side"] == "all" else f", {found['side']} side"
    return {
        f"Likelihood of {found['images']:,} images of {found['data']}{side}": _likelihood(found),
        "Reconstructions of the same": _reconstructions(found),
        **_fidelity(found),
        "Copies of training images": _memorisation(found),
        "Diagnosis": _diagnosis(found),
    }


def _table(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {text}" for name, text in rows]


def _likelihood(found: dict[str, Any]) -> list[tuple[str, str]]:
    active = ("active latents", f"{found['active_units']} of {found['latents']}")
    if found["nll"] is None:
        return [("NLL", f"none: {found['why']['nll']}"), active]
    error, bits = found["nll_standard_error"], found["bits_per_dimension"]
    effective, per_latent = found["effective_sample_size"], found["kl_per_latent"]
    rows = [
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
            ("", f"so few that the true NLL may be lower by nats: --samples {10 * found['samples']} comes closer to it")
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


def _reconstructions(found: dict[str, Any]) -> list[tuple[str, str]]:
    made = found.get("reconstructions")
    if not made:
        return []

    def figure(name: str, form: str) -> str:
        error = made[f"{name}_standard_error"]
        return f"{made[name]:{form}}" + (f" +- {error:{form}}" if error is not None else "")

    ssim = "none: for images of at least 11 pixels a side" if made["ssim"] is None else figure("ssim", ".3f")
    return [("PSNR", f"{figure('psnr', '.2f')} dB"), ("SSIM", ssim), ("MSE", f"{figure('mse', '.5f')} (pixels 0 to 1)")]


def _fidelity(found: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """A table whose columns are the figures, each over its confidence interval."""
    if "fidelity" not in found:
        return {}
    judged = found["fidelity"]
    if judged is None:
        return {"New images beside held-out ones": [("not compared", found["why"]["fidelity"])]}
    columns = ("precision", "recall", "density", "coverage", "kid", "fid")
    names = {"kid": "KID x 1000", "fid": "FID" if judged["standard"] else "Frechet*"}
    rows = [("", "".join(f"{names.get(name, name):>20}" for name in columns))]
    above = judged["above_own_prior"]
    for name, figures in (judged["sets"] | ({"new, above own prior's": above} if above else {})).items():
        cells = []
        for column in columns:
            scale, digits = {"kid": (1000, 2), "fid": (1, 1)}.get(column, (1, 3))
            value, low, high = (scale * figures[column][end] for end in ("value", "low", "high"))
            cells.append(f"{value:.{digits}f} +- {(high - low) / 2:.{digits}f}")
        rows.append((name, "".join(f"{cell:>20}" for cell in cells)))
    star = "" if judged["standard"] else "; * not the FID or KID of publications, which are Inception's"
    seen = f"{judged['extractor']}, {judged['resize']}"
    return {f"{judged['images']:,} images each beside as many held-out ones, +- 95 %: {seen}{star}": rows}


def _memorisation(found: dict[str, Any]) -> list[tuple[str, str]]:
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
            "not told: it takes 200 held-out images"
            if memory["copied"] is None
            else f"{memory['copied']:.1%} of new images, where 1.0% is expected without copies",
        ),
        ("held-out duplicates", f"{memory['duplicates']:.1%} of held-out images stand among the training images"),
    ]


def _diagnosis(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "diagnosis" not in found:
        return []
    if not found["diagnosis"]:
        return [("healthy", "none of the faults that are looked for was found")]
    rows = []
    for one in found["diagnosis"]:
        rows += [(one["name"], one["sentence"]), ("", f"-> {one['remedy']}")]
    return rows


def ranking_lines(table: "pd.DataFrame", samples: int) -> list[str]:
    """What a ranking is, and its odd end, a line each."""
    nats = table["log_likelihood"]
    bits = "bits_per_dimension" in table
    found = [f"{len(table):,} images by log p(x), odd ones first, {samples:,} importance samples each"]
    found += [f"  {value:12,.1f} nats  {file}" for file, value in zip(table["file"][:5], nats[:5], strict=True)]
    found.append(f"  {nats.median():12,.1f} nats  the image in the middle")
    if not bits:
        found.append(f"  no bits/dim: {NO_BITS[table.attrs['measure']]}")
    return [*found, "Flat and simple images rank as likely whatever they show, busy ones as odd: docs/looking.md."]
