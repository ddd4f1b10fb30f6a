"""How settings are given, and how invalid ones are explained."""

from typing import Any

import pytest
from pytest import MonkeyPatch

from command import user_error
from vaekit import errors
from vaekit.cli.main import app
from vaekit.config.config import GROUPS, TOP_LEVEL, Config
from vaekit.config.keywords import TrainSettings
from vaekit.config.networks import ConvConfig, MlpConfig
from vaekit.config.overrides import differences, override, resolve
from vaekit.config.presets import PRESETS
from vaekit.config.suggestions import USUAL_NAMES, nearest
from vaekit.errors import flag_spelling

OBJECTIVE = "The settings of the objective "
INVALID: list[tuple[dict[str, Any], str]] = [
    ({"epoch": 3}, "'epoch' is not a setting. Did you mean 'epochs'?"),
    ({"lr": 0.01}, "'lr' is not a setting. Did you mean 'learning_rate'?"),
    ({"latent_dim": 8}, "'latent_dim' is not a setting. Did you mean 'latents'?"),
    ({"beta": 4}, "'beta' is not a setting. Did you mean 'objective.beta'?"),
    ({"epochs": -1}, "epochs: must be at least 0 (got -1)."),
    ({"epochs": "many"}, "epochs: must be a whole number (got many)."),
    ({"learning-rate": -1}, "learning_rate: must be greater than 0 (got -1)."),
    ({"ema": 1}, "ema: must be less than 1 (got 1)."),
    ({"flip": "maybe"}, "flip: must be true or false (got maybe)."),
    (
        {"encoder": {"kind": "mpl"}},
        "encoder.kind: must be mlp, gated_mlp, conv, resnet, dcae or autoencoder_kl (got mpl).",
    ),
    ({"encoder": {"kind": "mpl"}}, "(got mpl). Did you mean 'mlp'?"),
    ({"posterior": "full-gausian"}, "posterior.kind: must be gaussian, clipped_gaussian, full_gaussian"),
    ({"posterior": "full-gausian"}, "(got full-gausian). Did you mean 'full_gaussian'?"),
    (
        {"latents": {"c": 4}},
        "must be a number from 1 to 65536, channels x height x width such as 4x7x7, or auto",
    ),
    ({"objective": {"beta": {"from": 0}}}, "objective.beta: must be a number (got {'from': 0})."),
    ({"encoder": {"chanels": 3}}, "'encoder.chanels' is not a setting of the encoder 'conv'."),
    ({"encoder": {"chanels": 3}}, "Did you mean 'encoder.channels'?"),
    ({"objective": {"betta": 3}}, "Did you mean 'objective.beta'?"),
    ({"objective": {"beta": float("nan")}}, "objective.beta: must be a finite number (got nan)."),
    ({"likelihood": {"sigma": "fixed"}}, "likelihood.sigma is not a setting of the likelihood 'bernoulli'."),
    ({"likelihood": {"sigma": "fixed"}}, "It needs likelihood={'kind': 'gaussian'}"),
    ({"fit": "crap"}, "fit: must be crop, pad or stretch (got crap). Did you mean 'crop'?"),
    (
        {"size": "big"},
        "size: must be 64 or 96x64 (width x height), each side from 1 to 4096 pixels (got big).",
    ),
    ({"size": "64x0"}, "(got 64x0)."),
    ({"validation": "1.5"}, "validation: must be a fraction between 0 and 1 such as 0.1, or last:N"),
    ({"device": "gpu"}, "device: must be auto, cpu, cuda, cuda:1 or mps (got gpu)."),
    ({"device": "cuda:"}, "(got cuda:)."),
    ({"objective": {"free_bits": 1, "capacity": 2}}, f"{OBJECTIVE}'elbo' are invalid: "),
    ({"objective": {"kind": "miwae", "samples": 5}}, f"{OBJECTIVE}'miwae' are invalid: samples"),
    ({"latents": "4x7"}, "(got 4x7)."),
    ({"encoder": {"kind": "resnet", "channels": 20}}, "encoder.channels: must be a multiple of 8 (got 20)."),
]


@pytest.mark.parametrize(("settings", "sentence"), INVALID)
def test_invalid_settings_are_explained_in_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with user_error() as error:
        resolve(settings)
    assert sentence in str(error.value).replace("`", "")
    assert "\n" not in str(error.value)


def test_settings_at_fault_are_spelled_as_flags(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_spelling", flag_spelling)
    batch_size = "--batch-size: must be a whole number from 1 to 1000000, or auto (got 0)."
    sigma = "It needs --likelihood.kind gaussian or --likelihood.kind laplace."
    for settings, sentence in (({"batch_size": 0}, batch_size), ({"likelihood": {"sigma": "fixed"}}, sigma)):
        with user_error() as error:
            resolve(settings)
        assert sentence in str(error.value)


def test_unknown_presets_are_reported() -> None:
    with user_error(r"Unknown preset 'sigma'\. Did you mean 'sigma-vae'\? `vaekit presets` lists"):
        resolve(preset="sigma")


@pytest.mark.parametrize("name", USUAL_NAMES)
def test_usual_names_suggest_a_setting_that_exists(name: str) -> None:
    option = nearest(name, {argument.name for argument in app["train"].assemble_argument_collection()})
    assert option is not None and nearest(option, [USUAL_NAMES[name]]) == USUAL_NAMES[name]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives_json(preset: str) -> None:
    config = resolve(preset=preset)
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_later_layers_override_earlier_ones() -> None:
    config = resolve({"epochs": 3, "seed": 1}, {"epochs": "7", "size": 32}, preset="sigma-vae")
    assert (config.training.epochs, config.training.seed, config.data.width_height) == (7, 1, (32, 32))
    assert config.likelihood.kind == "gaussian"
    config = resolve({"encoder": {"channels": 8}}, {"encoder": "mlp"})
    assert config.encoder.kind == "mlp"
    same_kind = resolve({"encoder": {"channels": 8}}, {"encoder": {"activation": "tanh"}}).encoder
    assert same_kind == ConvConfig(channels=8, activation="tanh")


def test_size_is_width_by_height() -> None:
    assert resolve({"size": "96x64"}).data.width_height == (96, 64)
    assert resolve({"size": (96, 64)}).data.width_height == (96, 64)
    assert resolve({"size": 64}).data.width_height == (64, 64)
    assert resolve({"size": None}).data.width_height is None


WIDTHS = [("400,200", (400, 200)), ("none", ()), ([5, "6"], (5, 6)), (7, (7,))]


@pytest.mark.parametrize(("written", "widths"), WIDTHS)
def test_layer_widths_are_parsed(written: Any, widths: tuple[int, ...]) -> None:
    encoder = resolve({"encoder": {"kind": "mlp", "hidden": written}}).encoder
    assert encoder == MlpConfig(hidden=widths)


def test_differences_use_the_names_of_flags() -> None:
    old = resolve()
    new = override(old, {"learning_rate": 0.1, "objective": {"free_bits": 0.5}})
    assert differences(old, new) == {"learning-rate": (1e-3, 0.1), "objective.free-bits": (0.0, 0.5)}


def test_keywords_of_train_are_all_settings() -> None:
    settings = {*Config.model_fields, *TOP_LEVEL} - {*GROUPS}
    assert {*TrainSettings.__annotations__} == settings
