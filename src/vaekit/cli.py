"""The command line: a few lines a verb. Errors are one sentence on the last line of standard error."""

import io
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from vaekit.errors import UserError
from vaekit.flags import Written
from vaekit.presets import PRESETS
from vaekit.version import VERSION

RESUMABLE = 75
"""Exit status of an interrupted run that `--resume` goes on with (EX_TEMPFAIL)."""

app = App(
    name="vaekit",
    help="From a folder of images to a variational autoencoder you can trust.",
    version=VERSION,
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,
)

RunFolder = Annotated[Path, Parameter(help="Run folder that `vaekit train` wrote.")]
Seed = Annotated[int, Parameter(help="Random seed: the same seed gives the same images.")]
Data = Annotated[str | None, Parameter(help="Images, as `train` takes them; default: those it was trained on.")]
Class = Annotated[
    str | None, Parameter(name="--class", help="Class to draw with, in a conditional model; default: the first.")
]
Png = Annotated[Path | None, Parameter(help="PNG file to write; default: a new one in the run folder.")]
Out = Annotated[Path | None, Parameter(help="Folder to write to; default: a new one in the run folder.")]


@app.command
def train(
    data: Annotated[str | None, Parameter(help="Folder of images, .npz or .npy file, or folder of IDX files.")] = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Run folder; default: the first free one below runs/.")] = None,
    preset: Annotated[str | None, Parameter(help="Named model to start from; see `vaekit presets`.")] = None,
    config: Annotated[Path | None, Parameter(help="TOML file of settings, between the preset and the flags.")] = None,
    resume: Annotated[
        bool, Parameter(negative=(), help="Go on with the run in --out; start it if it is not there.")
    ] = False,
    max_minutes: Annotated[float | None, Parameter(help="Stop at the end of an epoch after this many minutes.")] = None,
    settings: Written | None = None,
) -> None:
    """Train a VAE on DATA (default: a bundled sample of 10,000 Fashion-MNIST images)."""
    layers = [*([_toml(config)] if config else []), settings or {}]
    from vaekit.api import load
    from vaekit.training.request import Request
    from vaekit.training.session import run_training

    run = run_training(Request(data, tuple(layers), preset, out, resume, max_minutes))
    load(run.folder).report()
    print(f"Wrote {run.folder}: report.html, loss.png, samples/, reconstructions/, model.safetensors")
    print(f"New images: vaekit generate {shlex.quote(str(run.folder))} -n 64")


@app.command
def generate(
    run: RunFolder,
    /,
    *,
    n: Annotated[int, Parameter(name=["-n", "--count"], help="Number of images.")] = 64,
    class_: Annotated[str | None, Parameter(name="--class", help="Class to draw, where the images had any.")] = None,
    prior: Annotated[
        Literal["fitted", "model"] | None,
        Parameter(help="Fitted to the latents after training (default, where there is one), or the model's own."),
    ] = None,
    temperature: Annotated[float, Parameter(help="Scale of the latent noise; below 1: less varied.")] = 1.0,
    seed: Seed = 0,
    out: Out = None,
) -> None:
    """Draw new images from the latent space: PNG files and a grid."""
    from vaekit import pictures
    from vaekit.api import load
    from vaekit.files import safe_name
    from vaekit.run import first_free, new_folder

    if not 1 <= n <= 1_000_000:
        raise UserError(f"-n {n} is not possible: it should be between 1 and 1,000,000.")
    model = load(run)
    folder = new_folder(model.run, out or first_free(run / "generated", "set"))
    images = model.sample(n, seed=seed, label=class_, temperature=temperature, prior=prior)
    labels = model.sample_labels(n, class_)
    names = [f"{i:04d}" + (f"-{safe_name(labels[i - 1])}" if labels else "") for i in range(1, n + 1)]
    files = dict(zip(names, map(pictures.picture, images), strict=True))
    fitted = model.fitted_prior if prior != "model" else None
    print(f"Drawn from {'its own prior' if fitted is None else f'a prior fitted to its latents: {fitted.name}'}")
    print(pictures.write_folder(folder, files, pictures.grid(images[:256], labels=labels)))


@app.command
def fit_prior(run: RunFolder, /) -> None:
    """Fit a prior to the latents of the training images, which `generate` draws from where it is better."""
    from vaekit.api import load

    found = load(run).fit_prior()["nats_per_held_out_image"]
    if len(found) == 1:  # nothing was tried
        return
    print("Mean log-density of held-out latents, in nats:")
    for name, nats in sorted(found.items(), key=lambda item: -item[1]):
        print(f"  {nats:10.2f}  {name}")


@app.command
def reconstruct(
    run: RunFolder,
    /,
    *images: Annotated[Path, Parameter(help="Image files.")],
    class_: Annotated[
        str | None, Parameter(name="--class", help="Class of the images (default: their folder's name).")
    ] = None,
    out: Out = None,
) -> None:
    """Pass image files through the model and back: input beside output."""
    from vaekit import pictures
    from vaekit.api import load
    from vaekit.data.pack import load_images
    from vaekit.files import safe_name
    from vaekit.run import first_free, new_folder

    if not images:
        raise UserError("reconstruct needs image files: name them after the run folder.")
    model = load(run)
    folder = new_folder(model.run, out or first_free(run / "reconstructed", "set"))
    before = load_images(images, model.config.data, model.shape)
    after = model.reconstruct(
        before, class_ or ([path.resolve().parent.name for path in images] if model.model.classes else None)
    )
    names = [f"{i:04d}-{safe_name(path.stem)}" for i, path in enumerate(images, 1)]
    beside = [pictures.pairs(one[None], two[None]) for one, two in zip(before, after, strict=True)]
    overview = pictures.pairs(before[:64], after[:64], labels=[path.name for path in images[:64]])
    print(pictures.write_folder(folder, dict(zip(names, beside, strict=True)), overview))


@app.command
def evaluate(
    run: RunFolder,
    /,
    *,
    data: Annotated[
        str | None, Parameter(help="Images to judge by; default: the test or else the validation side of its own.")
    ] = None,
    samples: Annotated[int, Parameter(help="Importance samples of every image; more come closer to log p(x).")] = 1000,
    new_images: Annotated[int, Parameter(help="New images to compare with as many held-out ones.")] = 1000,
    seed: Annotated[int, Parameter(help="Random seed of the samples.")] = 0,
) -> None:
    """Judge the model by held-out images: likelihood, reconstructions, new images beside them, and a diagnosis."""
    from vaekit.api import load
    from vaekit.judging.words import lines

    model = load(run)
    found = model.evaluate(data, samples=samples, new_images=new_images, seed=seed)
    print("\n".join(lines(found)))
    print(f"Wrote {model.run.evaluation}; `vaekit report {shlex.quote(str(run))}` shows it on a page")


@app.command
def encode(
    run: RunFolder,
    data: Data = None,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="File to write: .csv, .npz or .parquet; default: a new .csv in the run folder.")
    ] = None,
) -> None:
    """Write where every image of DATA lies in the latent space: a table of posterior means."""
    from vaekit.api import load
    from vaekit.run import first_free

    file = out or first_free(run, "latents", ".csv")
    table = load(run).latents(data, out=file)
    print(f"Wrote the latents of {len(table):,} images to {file}")


@app.command
def interpolate(
    run: RunFolder,
    a: Annotated[Path, Parameter(help="Image file to begin with.")],
    b: Annotated[Path, Parameter(help="Image file to end with.")],
    /,
    *,
    steps: Annotated[int, Parameter(help="Number of images, both ends included.")] = 9,
    linear: Annotated[bool, Parameter(negative=(), help="Along a straight line instead of a great circle.")] = False,
    class_: Annotated[
        str | None, Parameter(name="--class", help="Class to draw all with (default: their folder's name).")
    ] = None,
    out: Png = None,
) -> None:
    """Draw the way from image A to image B through the latent space, as a strip."""
    from vaekit import pictures
    from vaekit.api import load
    from vaekit.data.pack import load_images
    from vaekit.run import first_free, new_file

    model = load(run)
    file = new_file(model.run, out or first_free(run, "interpolation", ".png"), (".png",))
    ends = load_images((a, b), model.config.data, model.shape)
    how: Literal["linear", "spherical"] = "linear" if linear else "spherical"
    between = model.interpolate(a, b, steps=steps, how=how, label=class_)
    names = (a.stem, b.stem) if a.stem != b.stem else (f"{a.parent.name}/{a.stem}", f"{b.parent.name}/{b.stem}")
    title = f"Originals at the ends; 0% and 100% are their reconstructions, with the {how} way between them"
    pictures.write(file, pictures.strip(ends[0], ends[1], between, names, title))
    print(f"Wrote {file}")


@app.command
def traverse(run: RunFolder, /, *, class_: Class = None, out: Png = None) -> None:
    """Draw what the ten most active latents do to a picture: a row for each."""
    from vaekit import pictures
    from vaekit.api import load
    from vaekit.judging.likelihood import ACTIVE
    from vaekit.run import first_free, new_file

    model = load(run)
    file = new_file(model.run, out or first_free(run, "traversal", ".png"), (".png",))
    found = model.traverse(label=class_)
    pictures.write(file, pictures.table(found.images, found.rows, found.columns, found.title))
    if (found.activity**2 < ACTIVE).all():
        print("No latent depends on the image: `vaekit evaluate` tells why, and what to do")
    print(f"Wrote {file}")


@app.command
def rank(
    run: RunFolder,
    data: Data = None,
    /,
    *,
    samples: Annotated[int, Parameter(help="Importance samples of every image; more come closer to log p(x).")] = 100,
    seed: Annotated[int, Parameter(help="Random seed of the samples.")] = 0,
    out: Annotated[Path | None, Parameter(help="CSV file to write; default: a new one in the run folder.")] = None,
) -> None:
    """Rank the images of DATA by their likelihood, odd ones first: a table, and a sheet of both its ends."""
    from vaekit.api import load
    from vaekit.judging.words import ranking_lines
    from vaekit.run import first_free

    file = out or first_free(run, "ranking", ".csv", ".png")
    found = load(run).rank(data, samples=samples, seed=seed, out=file)
    print("\n".join(ranking_lines(found, samples)))
    print(f"Wrote {file} and {file.with_suffix('.png')}")


@app.command
def report(run: RunFolder, /) -> None:
    """Write report.html: the whole run on one page that opens without a network."""
    from vaekit.api import load

    print(f"Wrote {load(run).report()}")


@app.command
def bench(
    *workloads: Annotated[
        str,
        Parameter(
            help="What to measure: mlp, conv, resnet, folder-first, folder-later, generation, evaluation, scaling; "
            "default: all, half an hour."
        ),
    ],
    rounds: Annotated[int, Parameter(help="Turns that everything takes; medians count.")] = 9,
    out: Annotated[
        Path | None, Parameter(help="JSON file to write; default: bench-1.json here, or the next number.")
    ] = None,
) -> None:
    """Measure how fast vaekit trains and runs here, beside a bare loop, a DataLoader script and Pythae."""
    from vaekit.bench import bench as measured
    from vaekit.run import first_free, new_file, write_json

    file = new_file(None, out or first_free(Path(), "bench", ".json"), (".json",))
    write_json(file, measured(workloads, rounds))
    print(f"Wrote {file}")


@app.command
def presets() -> None:
    """List the named models: parts (encoder, posterior, prior, likelihood, objective), paper, and what was checked."""
    from vaekit.resolve import parts, resolve

    width = max(map(len, PRESETS))
    for name, preset in PRESETS.items():
        print(f"{name:<{width}}  {preset.about}")
        print(f"{'':<{width}}    parts: {parts(resolve(preset=name))}")
        print(f"{'':<{width}}    paper: {preset.paper}")
        for checked in preset.checked:
            print(f"{'':<{width}}    checked: {checked}")


@app.command
def doctor(
    *, clear_cache: Annotated[bool, Parameter(negative=(), help="Delete the packs of images read before.")] = False
) -> None:
    """Show versions, device, threads, free disk and cache."""
    from vaekit.doctor import clear, report

    print(clear() if clear_cache else report())


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--config {path} cannot be read: name a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is not TOML: {error}.") from None


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 a failure, 2 a user's mistake, 75 an interrupted, resumable run."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except CycloptsError as error:
        return _fail(2, str(error))
    except UserError as error:
        return _fail(2, str(error))
    except (BrokenPipeError, SystemExit):  # the reader of our output has gone: `vaekit presets | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interrupt:
        resumable = type(interrupt).__name__ == "Interrupted"
        return _fail(RESUMABLE, "Interrupted; --resume goes on.") if resumable else _fail(130, "Interrupted.")
    except OSError as error:
        return _fail(1, str(error))
    except Exception as error:
        if type(error).__name__ != "Failure":  # a fault of ours: show where
            traceback.print_exc()
        return _fail(1, str(error) or type(error).__name__)


def _fail(status: int, message: str) -> int:
    print("vaekit: " + " ".join(message.split()), file=sys.stderr)
    return status
