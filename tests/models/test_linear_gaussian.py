"""A VAE whose optimum is known: linear maps and Gaussian noise make it probabilistic PCA.

Tipping & Bishop 1999, equations 7 and 8: the maximum-likelihood noise is the mean of the discarded
eigenvalues of the data's covariance, and the likelihood follows from the eigenvalues. Lucas et al. 2019
(arXiv:1911.02469): the linear VAE has the same global optimum, where its bound is tight.
"""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaekit.config.overrides import resolve
from vaekit.models.builder import build

PIXELS, LATENTS, COUNT = 6, 2, 1000


def data() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(LATENTS, PIXELS, generator=generator)
    noise = 0.3 * torch.randn(COUNT, PIXELS, generator=generator)
    return (torch.randn(COUNT, LATENTS, generator=generator) @ mixing + noise + 0.7).reshape(COUNT, 1, 2, 3)


@pytest.mark.parametrize("sigma", ["learned", "optimal"])
def test_linear_vae_reaches_probabilistic_pca(sigma: str) -> None:
    x = data()
    linear = {"kind": "mlp", "hidden": "none"}
    noise = {"kind": "gaussian", "levels": "none", "sigma": sigma, "scale": 1.0}
    networks = {"latents": LATENTS, "encoder": linear, "decoder": linear}
    config = resolve(networks, {"likelihood": noise, "objective": {"samples": 8}})
    model, objective = build(config, (1, 2, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    steps = 1500
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss, _ = objective(model.terms(x, samples=objective.samples))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    flat = x.flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(flat.T.cov(correction=0)).flip(0)
    noise = eigenvalues[LATENTS:].mean()
    log_det = eigenvalues[:LATENTS].log().sum() + (PIXELS - LATENTS) * noise.log()
    log_likelihood = -0.5 * (PIXELS * math.log(2 * math.pi) + log_det + PIXELS)
    model.eval()
    with torch.no_grad():
        bound = -objective(model.terms(x, samples=200))[0].item()
        px = model.decode(torch.cat([torch.zeros(1, LATENTS), torch.eye(LATENTS)])[None])
        offset, *columns = px.mean[0].flatten(1).double()
        weight = torch.stack([column - offset for column in columns], dim=1)
        variance = px.log_sigma.double().mul(2).exp()
        marginal = MultivariateNormal(offset, weight @ weight.T + variance * torch.eye(PIXELS))
        exact = marginal.log_prob(flat).mean().item()
    assert variance.item() == pytest.approx(noise.item(), rel=0.02)
    assert exact == pytest.approx(log_likelihood.item(), abs=0.01)
    assert bound == pytest.approx(log_likelihood.item(), abs=0.03)
    assert bound < exact + 0.01


def test_noise_on_latents_costs_a_linear_decoder_its_squared_weights() -> None:
    """Strengths t are uniform up to the share tau, so that E[t^2] = tau^2 / 3: the mean of log p(x | z) falls
    by E[t^2] Var(z) |W|^2 / (2 sigma^2), in training only."""
    x, linear, tau, sigma = data(), {"kind": "mlp", "hidden": "none"}, 1.5, 0.5
    noise = {"kind": "gaussian", "levels": "none", "sigma": "fixed", "scale": sigma}
    networks = {"latents": LATENTS, "encoder": linear, "decoder": linear, "latent_noise": tau}
    model, _ = build(resolve(networks, {"likelihood": noise}), (1, 2, 3))
    with torch.no_grad():
        torch.manual_seed(0)
        noisy = model.train().terms(x, samples=2000)
        clean = model.eval().terms(x, samples=2000)
        px = model.decode(torch.cat([torch.zeros(1, LATENTS), torch.eye(LATENTS)])[None])
        weight = (px.mean[0, 1:] - px.mean[0, 0]).square().sum()
        cost = tau**2 / 3 * noisy.groups[0].z.var() * weight / (2 * sigma**2)
    fall = (clean.log_px.mean() - noisy.log_px.mean()).item()
    assert fall == pytest.approx(cost.item(), rel=0.02)
