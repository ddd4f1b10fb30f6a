"""Named models as combinations of parts: data, not classes."""

from typing import Any

from vaekit.config.base import BaseConfig


class Checked(BaseConfig):
    """What was measured against a published number, by a row of `benchmarks/paper_table/` that starts from a preset."""

    row: str
    nll: float
    """Nats per image on MNIST's test images."""
    published: float

    def __str__(self) -> str:
        return f"NLL {self.nll:.2f} (published: {self.published:.2f}) with paper_table/rows/{self.row}.toml"


class Preset(BaseConfig):
    about: str
    paper: str
    settings: dict[str, Any]
    checked: tuple[Checked, ...] = ()


BURDA = {
    "latents": 50,
    "encoder": {"kind": "mlp", "hidden": (200, 200), "activation": "tanh"},
    "decoder": {"kind": "mlp", "hidden": (200, 200), "activation": "tanh"},
    "likelihood": {"kind": "binarized"},
}


PRESETS: dict[str, Preset] = {
    "classic": Preset(
        about="convolutions, Gaussian latent, binary cross-entropy + KL, Adam; the default for gray images",
        paper="Kingma & Welling 2014, arXiv:1312.6114",
        settings={},
    ),
    "conditional": Preset(
        about="classic, with the class given to encoder and decoder",
        paper="Kingma et al. 2014, arXiv:1406.5298",
        settings={"conditional": True},
    ),
    "beta-vae": Preset(
        about="four times the weight on the KL, for latents that vary independently",
        paper="Higgins et al. 2017, ICLR",
        settings={"objective": {"beta": 4.0}},
    ),
    "capacity": Preset(
        about="KL held at a value that rises from 0 to 25 nats, for latents that open one after another",
        paper="Burgess et al. 2018, arXiv:1804.03599",
        settings={"objective": {"capacity": 25.0, "beta": 100.0, "warmup": 20.0}},
    ),
    "cyclical": Preset(
        about="weight of the KL rising from 0 four times, against posterior collapse",
        paper="Fu et al. 2019, arXiv:1903.10145",
        settings={"objective": {"warmup": 5.0, "cycles": 4}},
    ),
    "free-bits": Preset(
        about="every latent may carry 0.1 nats for free, against posterior collapse",
        paper="Kingma et al. 2016, arXiv:1606.04934",
        settings={"objective": {"free_bits": 0.1}},
    ),
    "best": Preset(
        about="best new images per minute (KID) of what was measured on CIFAR-10; the default for colour images",
        paper="its learned noise level: Rybkin et al. 2021, arXiv:2006.13202",
        settings={
            "latents": 128,
            "encoder": {"activation": "silu"},
            "decoder": {"activation": "silu"},
            "likelihood": {"kind": "laplace", "sigma": "learned"},
            "training": {"batch_size": 64, "learning_rate": 2e-3, "ramp": 200},
        },
    ),
    "sigma-vae": Preset(
        about="a Gaussian over the 256 levels, its noise level learned",
        paper="Rybkin et al. 2021, arXiv:2006.13202",
        settings={"likelihood": {"kind": "gaussian", "sigma": "learned"}},
    ),
    "continuous-bernoulli": Preset(
        about="cross-entropy made a density on [0, 1] by its normaliser",
        paper="Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845",
        settings={"likelihood": "continuous_bernoulli"},
    ),
    "logistic-mixture": Preset(
        about="mixtures of logistics over the 256 levels, each colour given those before it",
        paper="Salimans et al. 2017, arXiv:1701.05517",
        settings={"likelihood": "logistic_mixture"},
    ),
    "iwae": Preset(
        about="the importance-weighted bound of 5 samples",
        paper="Burda et al. 2016, arXiv:1509.00519",
        settings={"objective": "iwae"},
    ),
    "dreg": Preset(
        about="the same bound of 8 samples with doubly reparameterised gradients",
        paper="Tucker et al. 2019, arXiv:1810.04152",
        settings={"objective": {"kind": "dreg", "samples": 8}},
    ),
    "miwae": Preset(
        about="the mean of 4 importance-weighted bounds of 4 samples",
        paper="Rainforth et al. 2018, arXiv:1802.04537",
        settings={"objective": "miwae"},
    ),
    "vamp": Preset(
        about="prior: the mean posterior of 500 learned pseudo-inputs",
        paper="Tomczak & Welling 2018, arXiv:1705.07120",
        settings={"prior": "vamp"},
        checked=(Checked(row="vamp", nll=82.02, published=82.38),),
    ),
    "mixture-prior": Preset(
        about="prior: a learned mixture of 100 Gaussians",
        paper="Jiang et al. 2017, arXiv:1611.05148",
        settings={"prior": "mixture"},
    ),
    "flow-prior": Preset(
        about="prior: a learned RealNVP flow",
        paper="Huang et al. 2017, arXiv:1710.02248",
        settings={"prior": "flow"},
        checked=(Checked(row="resnet", nll=78.65, published=78.6),),
    ),
    "class-prior": Preset(
        about="conditional, with a Gaussian prior of its own for every class",
        paper="Sohn et al. 2015, NeurIPS 28",
        settings={"conditional": True, "prior": "class"},
    ),
    "iaf": Preset(
        about="posterior bent by inverse autoregressive flow",
        paper="Kingma et al. 2016, arXiv:1606.04934",
        settings={"posterior": "iaf"},
    ),
    "full-covariance": Preset(
        about="posterior: a Gaussian with full covariance",
        paper="Kingma & Welling 2019, arXiv:1906.02691",
        settings={"posterior": "full_gaussian"},
    ),
    "wae": Preset(
        about="Wasserstein autoencoder: no noise, MMD between encodings and prior",
        paper="Tolstikhin et al. 2018, arXiv:1711.01558",
        settings={"posterior": "delta", "objective": "mmd"},
    ),
    "info-vae": Preset(
        about="Gaussian posterior, MMD in place of the KL (alpha = 1)",
        paper="Zhao et al. 2019, arXiv:1706.02262",
        settings={"objective": {"kind": "mmd", "kernel": "rbf"}},
    ),
    "beta-tc-vae": Preset(
        about="six times the weight on the total correlation alone",
        paper="Chen et al. 2018, arXiv:1802.04942",
        settings={"objective": "total_correlation"},
    ),
    "dip-vae": Preset(
        about="the ELBO and a penalty on the covariance of the latents",
        paper="Kumar et al. 2018, arXiv:1711.00848",
        settings={"objective": {"kind": "dip", "variant": "2", "diagonal": 10.0}},
    ),
    "rae": Preset(
        about="regularised autoencoder: no noise, short latents, decaying weights; its samples mean little",
        paper="Ghosh et al. 2020, arXiv:1903.12436",
        settings={
            "posterior": "delta",
            "objective": {"kind": "l2", "weight": 0.02},
            "training": {"optimizer": "adamw", "weight_decay": 0.01},
        },
    ),
    "ae": Preset(
        about="plain autoencoder: reconstruction alone; its samples mean little",
        paper="Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647",
        settings={"posterior": "delta", "objective": {"kind": "l2", "weight": 0.0}},
    ),
    "burda-1": Preset(
        about="the network and data of the published likelihoods: 784-200-200-50, tanh, pixels drawn anew every step",
        paper="Burda et al. 2016, arXiv:1509.00519",
        settings=BURDA,
        checked=(
            Checked(row="burda-vae", nll=86.40, published=86.76),
            Checked(row="burda-iwae-5", nll=84.71, published=85.54),
            Checked(row="burda-iwae-50", nll=85.91, published=84.78),
        ),
    ),
}
