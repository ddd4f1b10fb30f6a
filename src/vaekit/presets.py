"""Named models as combinations of parts: data, not classes."""

from typing import Any

from vaekit.settings import Settings


class Preset(Settings):
    about: str
    paper: str
    settings: dict[str, Any]


PRESETS: dict[str, Preset] = {
    "classic": Preset(
        about="convolutions, Gaussian latent, binary cross-entropy + KL, Adam; the default for gray images",
        paper="Kingma & Welling 2014, arXiv:1312.6114",
        settings={},
    ),
    "sigma-vae": Preset(
        about="classic with a Gaussian over the 256 levels, its noise level learned; the default for colour images",
        paper="Rybkin et al. 2021, arXiv:2006.13202",
        settings={"likelihood": {"kind": "gaussian", "sigma": "learned"}},
    ),
    "conditional": Preset(
        about="classic, with the class given to encoder and decoder",
        paper="Sohn et al. 2015, NeurIPS 28",
        settings={"conditional": True},
    ),
    "beta-vae": Preset(
        about="classic with four times the weight on the KL, for latents that vary independently",
        paper="Higgins et al. 2017, ICLR",
        settings={"objective": {"beta": 4.0}},
    ),
    "free-bits": Preset(
        about="classic in which every latent may carry 0.1 nats for free, against posterior collapse",
        paper="Kingma et al. 2016, arXiv:1606.04934",
        settings={"objective": {"free_bits": 0.1}},
    ),
}
