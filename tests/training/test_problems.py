"""What is wrong with a finished training is said at its end."""

import numpy as np

import vaekit
from command import MLP, rings
from vaekit.config.overrides import resolve
from vaekit.training.problems import problems

GAUSSIAN = resolve(MLP)


def rows(*losses: float, kl: float = 5.0) -> list[dict[str, float]]:
    return [{"epoch": i + 1, "val_loss": loss, "val_kl": kl} for i, loss in enumerate(losses)]


def test_a_good_run_has_no_problems() -> None:
    assert problems(rows(100, 50, 48, 49), GAUSSIAN, 100) == []
    assert problems([], GAUSSIAN, 100) == []
    assert problems(rows(-100, -150, -145), GAUSSIAN, 100) == []


def test_divergence_collapse_and_few_images_are_said() -> None:
    (text,) = problems(rows(100, 50, 900), GAUSSIAN, 100)
    assert "rose from 50.00 in epoch 2 to 900.00 at the end: training diverged" in text
    (text,) = problems(rows(100, 50, kl=0.01), resolve(MLP | {"objective": {"beta": 50}}), 100)
    assert "posterior has collapsed: the KL divergence is 0.01 nats" in text and "instead of 50" in text
    assert (
        problems(rows(100, 50, kl=0.0), resolve(MLP | {"posterior": "delta", "objective": "mmd"}), 100) == []
    )
    (text,) = problems(rows(100, 50), GAUSSIAN, 1)
    assert "is that of 1 image," in text


def test_more_epochs_of_a_cosine_schedule_are_said(tmp_path) -> None:
    settings = MLP | {
        "preset": "classic",
        "schedule": "cosine",
        "quiet": True,
        "report": False,
        "callbacks": [],
    }
    vaekit.train(rings(40, 12), out=tmp_path / "run", epochs=2, **settings)
    settings |= {"resume": True, "epochs": 4}
    vaekit.train(rings(40, 12), out=tmp_path / "run", **settings)
    log = (tmp_path / "run" / "log.txt").read_text()
    rate = 0.5 * (1 + np.cos(np.pi / 2)) * resolve().training.learning_rate
    assert f"now ends in epoch 4: the learning rate in epoch 2 is {rate:.2g} instead of 0" in log
