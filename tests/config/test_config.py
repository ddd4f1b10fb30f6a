"""What a person may write, and the one sentence output where it cannot be."""

from typing import Any

import pytest

from vaekit.config.config import Config
from vaekit.config.networks import ConvConfig, MlpConfig
from vaekit.config.overrides import differences, load_config, override, resolve
from vaekit.config.presets import PRESETS
from vaekit.errors import UserError


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"epoch": 3}, "There is no setting 'epoch' (did you mean 'epochs'?)."),
        ({"epochs": 0}, "--epochs 0 is not possible: it should be greater than or equal to 1."),
        ({"epochs": "many"}, "--epochs many is not possible: it should be a valid integer"),
        ({"learning-rate": -1}, "--learning-rate -1 is not possible: it should be greater than 0."),
        ({"encoder": {"kind": "mpl"}}, "There is no encoder of kind 'mpl' (did you mean 'mlp'?); --encoder.kind takes"),
        ({"posterior": "full-gausian"}, "There is no posterior of kind 'full-gausian' (did you mean 'full_gaussian'?)"),
        ({"latents": {"c": 4}}, "--latents {'c': 4} is not possible: it must be a"),
        ({"objective": {"beta": {"from": 0}}}, "--objective.beta {'from': 0} is not possible: it should be a valid"),
        (
            {"encoder": {"chanels": 3}},
            "There is no setting 'encoder.chanels' of encoder 'conv' (did you mean 'encoder.channels'?).",
        ),
        ({"objective": {"betta": 3}}, "(did you mean 'objective.beta'?)."),
        ({"objective": {"beta": float("nan")}}, "--objective.beta nan is not possible: it should be a finite"),
        ({"likelihood": {"sigma": "fixed"}}, "There is no setting 'likelihood.sigma' of likelihood 'bernoulli'"),
        (
            {"fit": "crap"},
            "--fit crap is not possible: it should be 'crop', 'pad' or 'stretch' (did you mean",
        ),
        ({"size": "big"}, "--size big is not possible: it must be 64 or 96x64 (width x height)"),
        ({"size": "64x0"}, "--size 64x0 is not possible"),
        ({"validation": "1.5"}, "--validation 1.5 is not possible: it must be a fraction between 0 and 1"),
        ({"device": "gpu"}, "--device gpu is not possible: it must be auto, cpu, cuda, cuda:1 or mps."),
        ({"device": "cuda:"}, "--device cuda: is not possible: it must be auto, cpu, cuda, cuda:1 or mps."),
        (
            {"objective": {"free_bits": 1, "capacity": 2}},
            "The objective 'elbo' with these settings is not possible: free",
        ),
        ({"objective": {"kind": "miwae", "samples": 5}}, "is not possible: samples should be a multiple of bounds"),
        (
            {"latents": "4x7"},
            "--latents 4x7 is not possible: it must be a number from 1 to 65536, or channels x height",
        ),
        ({"encoder": {"kind": "resnet", "channels": 20}}, "--encoder.channels 20 is not possible"),
    ],
)
def test_invalid_settings_are_explained_in_one_sentence(written: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(written)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_stored_component_without_kind_is_reported() -> None:
    config = Config().model_dump() | {"likelihood": {}}
    with pytest.raises(UserError, match=r"The likelihood has no kind; --likelihood\.kind takes bernoulli or binarized"):
        load_config({"config": config})


def test_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'sigma-vae'"):
        resolve(preset="sigma")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives_json(preset: str) -> None:
    config = resolve(preset=preset)
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_later_layers_override_earlier_ones() -> None:
    config = resolve({"epochs": 3, "seed": 1}, {"epochs": "7", "size": 32}, preset="sigma-vae")
    assert (config.training.epochs, config.training.seed, config.data.width_height) == (7, 1, (32, 32))
    assert config.likelihood.kind == "gaussian"


def test_another_kind_drops_the_old_settings() -> None:
    config = resolve({"encoder": {"channels": 8}}, {"encoder": "mlp"})
    assert config.encoder.kind == "mlp"
    assert resolve({"encoder": {"channels": 8}}, {"encoder": {"activation": "tanh"}}).encoder == ConvConfig(
        channels=8, activation="tanh"
    )


def test_size_is_width_by_height() -> None:
    assert resolve({"size": "96x64"}).data.width_height == (96, 64)
    assert resolve({"size": (96, 64)}).data.width_height == (96, 64)
    assert resolve({"size": 64}).data.width_height == (64, 64)
    assert resolve({"size": None}).data.width_height is None


@pytest.mark.parametrize(("written", "widths"), [("400,200", (400, 200)), ("none", ()), ([5, "6"], (5, 6)), (7, (7,))])
def test_layer_widths_are_parsed(written: Any, widths: tuple[int, ...]) -> None:
    encoder = resolve({"encoder": {"kind": "mlp", "hidden": written}}).encoder
    assert encoder == MlpConfig(hidden=widths)


def test_differences_use_the_names_of_flags() -> None:
    old = resolve()
    new = override(old, {"learning_rate": 0.1, "objective": {"free_bits": 0.5}})
    assert differences(old, new) == {"learning-rate": (1e-3, 0.1), "objective.free-bits": (0.0, 0.5)}
