"""An evaluation for the screen."""

from typing import Any

FEW = 3
"""Effective samples of a middling image below which its bound is called loose."""


def lines(found: dict[str, Any]) -> list[str]:
    """The content of evaluation.json, a line each."""
    side = "" if found["side"] == "all" else f", {found['side']} side"
    error = found["nll_standard_error"]
    bits, effective = found["bits_per_dimension"], found["effective_sample_size"]
    no_bits = {
        "density": "a density of pixels that run from 0 to 1, not a probability of levels",
        "cross-entropy": "a cross-entropy of pixels between black and white, not their likelihood: "
        "--likelihood.kind gaussian has one",
        "probability": "a probability of black and white pixels, not of 256 levels",
    }
    normalised = "" if bits is None else f" = {bits:.4f} bits/dim"
    per_latent = found["kl_per_latent"]
    rows = {
        "NLL": f"{found['nll']:.2f}{f' +- {error:.2f}' if error else ''} nats per image{normalised}",
        "ELBO": f"{found['elbo']:.2f} = -(reconstruction {found['reconstruction']:.2f} + KL {found['kl']:z.2f})",
        "bound by samples": "   ".join(f"{int(k):,}: {bound:.2f}" for k, bound in found["bounds"].items()),
        "effective samples": f"mean {effective['mean']:.1f}, median {effective['median']:.1f}, smallest "
        f"{effective['smallest']:.1f} of {found['samples']:,}",
        **_few(effective["median"], found["samples"]),
        "active latents": f"{found['active_units']} of {found['latents']}",
    }
    if bits is None:
        rows["no bits/dim"] = no_bits[found["measure"]]
    if not per_latent:
        rows["KL per latent"] = "none: with these parts the KL is not a sum over latents in closed form"
    else:
        largest = sorted(per_latent, reverse=True)
        shown = " ".join(f"{value:z.2f}" for value in largest[:10])
        rows["KL per latent"] = f"{shown}{' ...' if len(largest) > 10 else ''} (largest first, all in evaluation.json)"
    width = max(map(len, rows))
    title = f"{found['images']:,} images of {found['data']}{side}, {found['samples']:,} importance samples each"
    return [title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())]


def _few(effective: float, samples: int) -> dict[str, str]:
    """A word of warning where one sample or two outweigh all others."""
    if effective >= FEW or samples == 1:
        return {}
    return {"": f"so few that the true NLL may be lower by nats: --samples {10 * samples} comes closer to it"}
