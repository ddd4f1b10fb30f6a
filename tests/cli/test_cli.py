"""Every verb through the real command line."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytest import MonkeyPatch

from command import Process, folder_state, mistake, rings, save_images, start, vaekit, wait_for
from vaekit import load
from vaekit.cli.flags import COMMON_OPTIONS
from vaekit.cli.generate import generate
from vaekit.cli.main import app
from vaekit.cli.tools import presets
from vaekit.config.objectives import ElboConfig
from vaekit.config.overrides import nest, resolve
from vaekit.config.presets import PRESETS
from vaekit.latents.arrays import NewImages
from vaekit.latents.sampling import draw_latents

CLASSES = ("dry", "rain")
NARROW = ("--encoder.channels", 8, "--decoder.channels", 8)
SMALL = ("--epochs", 2, *NARROW, "--latents", 4, "--batch-size", 16)
TINY = (*SMALL, "--no-report")
RESUME = ("train", "--resume", "--max-minutes", 0.0001, "--no-report")


def write_folder(folder: Path, count: int = 24, channels: int = 3, classes: Sequence[str] = CLASSES) -> Path:
    images = enumerate(rings(count, 24, channels))
    named = {f"{classes[i % len(classes)]}/photo {i}.png": image for i, image in images}
    return save_images(folder, named)


def config_of(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run / "config.json").read_text())["config"]
    return config


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A conditional model of the photos."""
    run = tmp_path_factory.mktemp("runs") / "photos"
    vaekit("train", photos, "--out", run, "--conditional", "--schedule", "constant", *TINY)
    return run


def test_help_lists_commands_and_explains_options() -> None:
    output = vaekit("--help")
    looking = ("encode", "interpolate", "traverse", "rank")
    for verb in ("train", "generate", "reconstruct", *looking, "presets", "doctor", "--version"):
        assert verb in output
    assert vaekit("--version").strip() == "0.1.0"
    for line in vaekit("train", "--help-all").splitlines():
        if line.startswith("  --"):
            assert len(line.strip().split("  ", 1)[1].strip()) > 10, line


def run_help(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "vaekit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_help_does_not_import_torch() -> None:
    probe = "import sys; from vaekit.cli.main import _run; _run(['--help']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_busy_waiting_is_limited_unless_the_environment_says_otherwise(
    given: dict[str, str], expected: str
) -> None:
    probe = (
        "import os; from vaekit.cli.main import _run; _run(['presets']); print(os.getenv('GOMP_SPINCOUNT'))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", probe]
    output = subprocess.run(
        command, env=environment | given, capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines()[-1] == expected


def test_help_of_train_lists_common_options_on_one_line_each(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = run_help("train", "--help")
    assert len(lines) <= 42
    assert lines[0] == "Usage: vaekit train [DATA] [OPTIONS]"
    assert tuple(line.split()[0] for line in lines if line.startswith("  --")) == COMMON_OPTIONS
    assert sum(line.startswith("  vaekit train ") for line in lines) == 5
    assert lines[-1] == "All options: vaekit train --help-all"
    assert max(map(len, lines)) <= 100


def test_help_is_wrapped_to_the_terminal_not_as_in_the_source(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = run_help("generate", "--help")
    start = next(number for number, line in enumerate(lines) if line.startswith("  --guidance"))
    end = next(number for number, line in enumerate(lines) if line.startswith("  --seed"))
    column = lines[start].index("Guidance")
    assert all(line.startswith(" " * (column + 2)) for line in lines[start + 1 : end])
    assert min(map(len, lines[start : end - 1])) > 50


def test_help_all_lists_every_option_once(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = run_help("train", "photos/", "--help-all")
    listed = [line.split()[0] for line in lines if line.startswith("  --")]
    assert len(set(listed)) == len(listed)
    accepted = {argument.name for argument in app["train"].assemble_argument_collection() if argument.show}
    assert set(listed) == {name for name in accepted if name.startswith("--")}
    assert not any(name.startswith("--decoder.") for name in listed)
    beta = lines.index(next(line for line in lines if "--objective.beta" in line))
    kinds = [line.split()[0] for line in lines[beta + 1 : beta + 7]]
    assert {"mmd:", "total_correlation:"} <= set(kinds)  # a line for each kind that explains it differently
    assert max(map(len, lines)) <= 100


def test_train_writes_the_documented_run_folder(run: Path) -> None:
    record = json.loads((run / "config.json").read_text())
    assert record["format"] == 1
    assert record["config"]["conditional"] is True
    assert {"seed", "device", "threads", "precision", "compile", "versions"} <= record.keys()
    assert record["classes"] == ["dry", "rain"]
    dataset = json.loads((run / "dataset.json").read_text())
    assert "fingerprint" in dataset
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    curves = [f"{split}_{name}" for split in ("train", "val") for name in ("loss", "reconstruction", "kl")]
    assert list(rows[0])[:10] == ["epoch", "step", "seconds", "images_per_second", *curves]
    assert list(rows[0])[7:10] == ["val_loss", "val_reconstruction", "val_kl"]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        total = float(row["val_reconstruction"]) + float(row["val_kl"])
        assert float(row["val_loss"]) == pytest.approx(total, rel=1e-5)
    epoch_pictures = ["samples/epoch_0001.png", "samples/epoch_0002.png", "reconstructions/epoch_0002.png"]
    for picture in ["loss.png", *epoch_pictures]:
        with Image.open(run / picture) as image:
            assert min(image.size) > 100
    assert (run / "model.safetensors").exists()
    newest = max((run / "checkpoints").glob("step_*"))
    names = {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert {file.name for file in newest.iterdir()} == names
    log = (run / "log.txt").read_text()
    assert "Preset: best (the default)" in log
    assert "posterior.head" in log
    assert "epoch 2/2" in log
    assert "Training took 2 steps only" in log and "998 more epochs and flow matching again take about" in log
    assert "--epochs 1000" in log
    assert not [file for file in run.rglob("*") if file.suffix in (".pt", ".pth", ".pkl", ".bin")]


def test_classic_trains_on_gray_images(tmp_path: Path) -> None:
    gray = write_folder(tmp_path / "gray", channels=1, classes=(".",))
    output = vaekit("train", gray, "--preset", "classic", "--out", tmp_path / "run", *SMALL)
    assert "Preset: classic" in output and "Compare losses only with" in output
    assert output.startswith(f"vaekit 0.1.0\nReading {gray} ...\n")
    assert f"Done. Open {tmp_path / 'run' / 'report.html'} to see the results." in output
    assert output.endswith(f"More images: vaekit generate {tmp_path / 'run'} -n 64\n")
    assert config_of(tmp_path / "run")["likelihood"]["kind"] == "bernoulli"


def test_generate_is_reproducible_by_seed(run: Path, tmp_path: Path) -> None:
    for name, seed, n in (("a", 3, 6), ("b", 3, 6), ("c", 4, 6), ("more", 3, 9)):
        vaekit("generate", run, "-n", n, "--seed", seed, "--out", tmp_path / name)
    files = {name: sorted((tmp_path / name).glob("0*.png")) for name in ("a", "b", "c", "more")}
    content = {name: [file.read_bytes() for file in paths] for name, paths in files.items()}
    assert len(content["a"]) == 6
    with Image.open(tmp_path / "a" / "grid.png") as grid:
        assert grid.width > grid.height  # 3 + 3
    vaekit("generate", run, "-n", 8, "--out", tmp_path / "eight")
    with Image.open(tmp_path / "eight" / "grid.png") as grid:
        assert grid.width > 1.4 * grid.height  # 4 + 4, not 3 + 3 + 2
    assert content["a"] == content["b"] == content["more"][:6]
    assert content["a"] != content["c"]
    with Image.open(files["a"][0]) as image:
        assert (image.size, image.mode) == ((24, 24), "RGB")


def test_generate_writes_images_as_they_come(run: Path, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    """Memory does not grow with the number of images, and what is written before a failure is whole."""
    pixels = np.zeros((3, 24, 24, 3), np.uint8)

    def batches(*_: object, **__: object) -> Iterator[NewImages]:
        yield NewImages(pixels, None)
        assert len(list((tmp_path / "new").glob("*.png"))) == 3
        yield NewImages(pixels, None)
        raise OSError("no space")

    monkeypatch.setattr("vaekit.latents.arrays.generate", batches)
    with pytest.raises(OSError, match="no space"):
        generate(run, n=9, out=tmp_path / "new")
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == [f"000{index + 1}-{('dry', 'rain')[index % 2]}.png" for index in range(6)]


def test_generated_images_are_a_data_set_with_classes(run: Path, tmp_path: Path) -> None:
    """In the layout of Hugging Face's imagefolder, whose rows name the images: grid.png is none."""
    output = vaekit("generate", run, "-n", 70, "--prior", "model", "--seed", 3, "--out", tmp_path / "new")
    assert f"{tmp_path / 'new' / 'metadata.csv'} lists them." in output
    with (tmp_path / "new" / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["file_name", "label", "seed", "log_density"]
    assert [row["file_name"] for row in rows] == sorted(p.name for p in (tmp_path / "new").glob("0*.png"))
    assert [row["label"] for row in rows] == [CLASSES[i % 2] for i in range(70)]
    assert {row["seed"] for row in rows} == {"3"}
    model = load(run).model
    z = draw_latents(model, 70, 3, torch.arange(70) % 2)
    density = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)  # of the standard normal
    assert [float(row["log_density"]) for row in rows] == pytest.approx(density.tolist(), abs=1e-3)
    labels = ("--labels", "metadata.csv", "--conditional")
    output = vaekit("train", tmp_path / "new", "--out", tmp_path / "run", *labels, *TINY)
    assert "1 image is left out, e.g. grid.png: not named in metadata.csv." in output
    summary = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert summary["classes"] == ["dry", "rain"] and summary["images"] == 70
    assert [file["path"] for file in summary["skipped"]] == ["grid.png"]
    assert config_of(tmp_path / "run")["data"]["labels"] == "metadata.csv"
    vaekit("train", tmp_path / "new", "--out", tmp_path / "plain", *TINY)  # without classes
    assert json.loads((tmp_path / "plain" / "dataset.json").read_text())["images"] == 70


def test_generate_by_class_and_at_temperature_zero(run: Path, tmp_path: Path) -> None:
    vaekit("generate", run, "-n", 3, "--class", "rain", "--out", tmp_path / "rain")
    names = sorted(file.name for file in (tmp_path / "rain").glob("0*"))
    assert names == ["0001-rain.png", "0002-rain.png", "0003-rain.png"]
    assert "Unknown class 'snow'. Available: dry, rain" in mistake("generate", run, "--class", "snow")
    vaekit("generate", run, "-n", 3, "--class", "dry", "--temperature", 0, "--out", tmp_path / "cold")
    assert len({file.read_bytes() for file in (tmp_path / "cold").glob("0*.png")}) == 1
    assert "between 0 and 100" in mistake("generate", run, "--temperature", -1)
    assert "between 1 and" in mistake("generate", run, "-n", 0)


def test_generate_writes_into_a_new_folder_only(run: Path, photos: Path, tmp_path: Path) -> None:
    assert "set-1" in vaekit("generate", run, "-n", 2)
    assert "set-2" in vaekit("generate", run, "-n", 2)
    (tmp_path / "mine.txt").write_text("kept")
    assert "already exists. Choose another --out." in mistake("generate", run, "-n", 2, "--out", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("verb", ["generate", "reconstruct"])
def test_output_inside_the_image_folder_is_refused(verb: str, run: Path, photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    given = [next(photos.rglob("*.png"))] if verb == "reconstruct" else []
    assert "is inside the image folder" in mistake(verb, run, *given, "--out", photos / "new")
    assert sorted(photos.rglob("*")) == before


def test_reconstruct_writes_inputs_and_outputs(run: Path, photos: Path, tmp_path: Path) -> None:
    some = sorted((photos / "rain").iterdir())[:2]
    output = vaekit("reconstruct", run, *some, "--out", tmp_path / "out")
    assert "Wrote 2 images" in output
    assert len(list((tmp_path / "out").glob("0*.png"))) == 2
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert "broken.png" in mistake("reconstruct", run, tmp_path / "broken.png", "--class", "dry")
    assert "Available: dry, rain" in mistake("reconstruct", run, some[0], "--class", "fog")


def test_presets_and_doctor_print_tables() -> None:
    lines = vaekit("presets").splitlines()
    assert lines[0] == "For any images"
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(PRESETS)
    assert max(map(len, lines)) <= 80
    output = vaekit("doctor")
    for word in ("torch", "device", "threads", "precision", "free disk", "cache"):
        assert word in output
    assert "Freed" in vaekit("doctor", "--clear-cache")


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_shown_as_a_configuration_file(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    presets(preset)
    output = capsys.readouterr().out
    assert resolve(tomllib.loads(output)) == resolve(preset=preset)
    assert PRESETS[preset].paper.split()[0] in output
    assert max(map(len, output.splitlines())) <= 80


def test_flags_override_the_file_and_the_file_the_preset(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("epochs = 1\nlatents = 7\n[objective]\nbeta = 2.0\nwarmup = 3\n")
    flags = ("--no-report", "--preset", "beta-vae", "--config", file, "--latents", 5, *NARROW)
    vaekit("train", photos, "--out", tmp_path / "run", *flags)
    config = config_of(tmp_path / "run")
    assert (config["training"]["epochs"], config["latents"]) == (1, 5)
    assert (config["objective"]["beta"], config["objective"]["warmup"]) == (2.0, 3.0)
    file.write_text("[objective\n")
    assert "settings.toml is not valid TOML" in mistake("train", photos, "--config", file)
    assert "--config: cannot read" in mistake("train", photos, "--config", tmp_path / "nowhere.toml")


def test_config_takes_the_settings_of_a_run(run: Path, photos: Path, tmp_path: Path) -> None:
    for source in (run, run / "config.json"):
        out, short = tmp_path / source.name, ("--epochs", 1, "--no-report")
        vaekit("train", photos, "--out", out, "--config", source, *short)
        old, new = (json.loads((at / "config.json").read_text()) for at in (run, tmp_path / source.name))
        assert new["preset"] == old["preset"]
        assert new["config"] == old["config"] | {"training": old["config"]["training"] | {"epochs": 1}}
    timed = tmp_path / "timed"
    vaekit("train", photos, "--out", timed, "--config", run, "--minutes", 0.01, "--no-report")
    assert "Plan: " in (timed / "log.txt").read_text()  # the time counts, not the epochs of the run
    (tmp_path / "other.json").write_text("[1]")
    assert "is not the config.json of a run" in mistake("train", photos, "--config", tmp_path / "other.json")


def test_the_documented_configuration_file_trains(photos: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "photos.toml").write_text(example)
    small = ("--no-report", "--epochs", 1, "--size", 12, "--prior.components", 4, *NARROW)
    vaekit("train", photos, "--out", tmp_path / "run", "--config", tmp_path / "photos.toml", *small)
    config = config_of(tmp_path / "run")
    settings = nest(tomllib.loads(example))
    assert config["objective"] == ElboConfig(**settings["objective"]).model_dump()
    assert config["data"]["fit"] == settings["data"]["fit"] == "pad"


def test_install_completion_writes_a_script(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    vaekit("--install-completion", "--shell", "fish")
    script = (tmp_path / ".config" / "fish" / "completions" / "vaekit.fish").read_text()
    assert "learning-rate" in script and "interpolate" in script


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("train nowhere", "nowhere"),
        ("train --epoch 3", "No such option '--epoch'. Did you mean '--epochs'?"),
        ("train --lr 0.01", "No such option '--lr'. Did you mean '--learning-rate'?"),
        ("train --batch=8", "No such option '--batch'. Did you mean '--batch-size'?"),
        ("train --latent-dim 8", "Did you mean '--latents'?"),
        ("train --image-size 8", "Did you mean '--size'?"),
        ("train --dropout-rate 0.1", "Did you mean '--encoder.dropout'?"),
        ("train --objective.betta 3", "Did you mean '--objective.beta'?"),
        ("train --objective.beta -1", "--objective.beta: must be at least 0 (got -1)."),
        (
            "train --encoder.kind cnn",
            "--encoder.kind: must be mlp, gated_mlp, conv, resnet, dcae or autoencoder_kl (got cnn).",
        ),
        ("train --epochs", "Option '--epochs' needs a value."),
        ("train --preset clasic", "Did you mean 'classic'?"),
        ("train https://example.org/photos.zip", "https://example.org/photos.zip"),
        ("train --resume", "--out"),
        ("train --device cuda:9", "--device auto"),
        ("generate nowhere", "nowhere is not a run"),
        ("generate", "Missing argument RUN."),
        (
            "generate run --prior fited",
            "--prior: must be fitted or model (got fited). Did you mean 'fitted'?",
        ),
        ("reconstruct run", "Missing image files. Usage: vaekit reconstruct RUN IMAGE ..."),
        ("interpolate run a b c d e", "Too many arguments: 6 instead of 3 (RUN A B)."),
        ("presets best x", "Unexpected argument 'x'."),
        ("tran", "No such command 'tran'. Did you mean 'train'?"),
    ],
)
def test_a_user_error_exits_2_with_one_line(command: str, output: str, tmp_path: Path) -> None:
    assert output in mistake(*command.split(), cwd=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_train_without_a_report_into_a_new_folder(photos: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        output = vaekit("train", photos, "--verbose", *TINY, cwd=tmp_path)
        assert f"Done. The results are in runs/photos-{number}." in output and "posterior.head" in output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["photos-1", "photos-2"]
    assert not (tmp_path / "runs/photos-1/report.html").exists()


def test_the_image_folder_is_never_changed(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos")
    before = folder_state(photos)
    time.sleep(0.02)
    vaekit("train", photos, "--out", tmp_path / "run", *TINY)
    vaekit("reconstruct", tmp_path / "run", *list(photos.rglob("*.png"))[:2])
    assert folder_state(photos) == before
    assert "is inside the image folder" in mistake("train", photos, "--out", photos / "run")


def test_max_minutes_stops_after_an_epoch_and_resume_continues(tmp_path: Path) -> None:
    np.save(tmp_path / "rings.npy", rings())
    data, run = tmp_path / "rings.npy", tmp_path / "run"
    settings = ("--preset", "classic", "--epochs", 5, "--no-report")
    output = vaekit("train", data, "--out", run, *settings, "--max-minutes", 0.0001)
    assert "Time limit reached. Training was stopped after 1 of 5 epochs (" in output
    assert "4 more epochs take about" in output and "Continue: vaekit train --resume --out" in output
    assert "Resuming in epoch 2" in vaekit(*RESUME, "--out", run)
    assert "There is no run in" in vaekit(*RESUME, data, "--out", tmp_path / "other")


def start_endless(folder: Path) -> tuple[Path, Process]:
    """Training that has written a checkpoint and is not about to end."""
    data, run = folder / "rings.npy", folder / "run"
    np.save(data, rings())
    process = start("train", data, "--out", run, "--epochs", 100_000, "--compile", "off")
    wait_for(lambda: any(run.glob("checkpoints/step_*")), process)
    return run, process


def test_ctrl_c_fits_the_prior_and_writes_the_report(tmp_path: Path) -> None:
    run, process = start_endless(tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "Press Ctrl-C again to save and quit" in out + err
    assert (run / "report.html").exists() and "Sampling prior: " in out + err
    assert "nothing is lost. Continue: vaekit train --resume --out" in err.strip().splitlines()[-1]


def test_a_second_ctrl_c_saves_and_quits(tmp_path: Path) -> None:
    run, process = start_endless(tmp_path)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "Press Ctrl-C again" in (run / "log.txt").read_text(), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (75, 130), err
    assert not (run / "report.html").exists()


def test_interrupted_training_prints_how_to_continue(tmp_path: Path) -> None:
    run, process = start_endless(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    last = err.strip().splitlines()[-1]
    assert last.startswith("vaekit: Stopped in epoch ") and " of 100000; nothing is lost." in last
    assert last.endswith(f"Continue: vaekit train --resume --out {run}")


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    run, process = start_endless(tmp_path)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (75, 128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert "Resuming in epoch" in vaekit(*RESUME, "--out", run)


def test_a_closed_pipe_does_not_stop_saving(tmp_path: Path) -> None:
    """As in `vaekit train | tee log`, where Ctrl-C ends the reader first."""
    run, process = start_endless(tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 75
    process.stderr.close()
    state = json.loads(max(run.glob("checkpoints/step_*/state.json")).read_text())
    assert (run / "metrics.csv").read_text().count("\n") == state["epoch"] + 1


@pytest.mark.skipif(sys.platform == "darwin", reason="file names there are always text")
def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    photos = os.fsencode(write_folder(tmp_path / "photos"))
    Path(os.fsdecode(photos + b"/rain/bad\xff.png")).write_bytes(b"")
    Path(os.fsdecode(photos + b"/rain")).rename(os.fsdecode(photos + b"/r\xe9in"))
    output = vaekit("train", tmp_path / "photos", "--out", tmp_path / "run", *SMALL)
    assert "1 file skipped: 1 empty" in output
    assert json.loads((tmp_path / "run" / "dataset.json").read_text())["skipped"][0]["reason"] == "empty"
    assert "r\\xe9in/bad\\xff.png" in (tmp_path / "run" / "report.html").read_text()
    vaekit("encode", tmp_path / "run", tmp_path / "photos", "--out", tmp_path / "latents.csv")
    assert "r\\xe9in/" in (tmp_path / "latents.csv").read_text()
    vaekit("rank", tmp_path / "run", tmp_path / "photos", "--samples", 2, "--out", tmp_path / "ranking.csv")


def test_unwritable_output_is_a_user_error(tmp_path: Path, run: Path) -> None:
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "rings.npy", rings(20))
    assert "Choose another --out." in mistake("train", tmp_path / "rings.npy", "--out", tmp_path / "file/run")
    assert "Choose another --out." in mistake("generate", run, "--out", tmp_path / "file")
    assert "Choose another --out." in mistake("generate", run, "--out", tmp_path / "file/new")


def test_a_full_disk_is_reported_and_the_run_resumes(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the checkpoint does not fit."""
    np.save(tmp_path / "rings.npy", rings(40))
    train = ("train", tmp_path / "rings.npy", "--out", tmp_path / "run", *TINY)
    command = [sys.executable, "-m", "vaekit", *train]
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "-", *map(str, command)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Free some space" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Best validation" in vaekit("train", "--out", tmp_path / "run", "--resume")
