"""Publishing to a folder or to the Hugging Face Hub, and loading from there.

Only files of known names are downloaded: JSON, which is validated, and safetensors, which hold numbers alone.
Nothing that is downloaded is executed.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaekit.errors import UserError, setting
from vaekit.export.published import require_license, require_publishable, write_published
from vaekit.runs.folder import Run
from vaekit.runs.loaded import LoadedModel
from vaekit.runs.metadata import read_metadata
from vaekit.utils.files import atomic_folder, require_outside

SCHEME = "hf:"
"""Beginning of the address of a model on the Hub."""
HOW_TO_NAME = "Write FOLDER/ with a slash at its end for a folder, or hf:USER/NAME for a repository."
LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN."


@dataclass(frozen=True)
class Repository:
    """A model on the Hub."""

    name: str
    """USER/NAME."""
    revision: str | None = None
    """A branch, a tag or a commit; None for the newest."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}{f'@{self.revision}' if self.revision else ''}"


def is_address(run: object) -> bool:
    """Whether `run` is the address of a model on the Hub, hf:USER/NAME, rather than a folder."""
    return str(run).startswith(SCHEME)


def parse_address(address: str) -> Repository:
    """The repository of hf:USER/NAME or hf:USER/NAME@REVISION; UserError for another text."""
    name, at, revision = address.removeprefix(SCHEME).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) or (at and not revision):
        raise UserError(
            f"{address!r} is no address of a model.", "Write hf:USER/NAME or hf:USER/NAME@REVISION."
        )
    return Repository(name, revision or None)


# --- Publishing ---------------------------------------------------------------------------------------------


def publish(model: LoadedModel, to: str | Path, license: str | None, quiet: bool) -> str:
    """Publish a model, and return where it is; see `TrainedModel.publish`."""
    license = require_license(license)
    require_publishable(model)
    target = parse_target(to)
    if isinstance(target, Path):
        if target.exists():
            raise UserError(f"{target} already exists.", f"Choose a new folder with {setting('to')}.")
        require_outside(target, read_metadata(model.run).source, "to")
        with atomic_folder(target) as temporary:
            write_published(model, temporary, license, target.resolve().name, target.resolve().name, quiet)
        return str(target)
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        write_published(model, Path(folder), license, target.name.split("/")[1], str(target), quiet)
        with _explained(target):
            return _upload(hub.HfApi(library_name="vaekit"), target, Path(folder))


def parse_target(to: str | Path) -> Path | Repository:
    """The folder or the repository that `to` names. A Path is a folder.

    Raises:
        UserError: a text that could be either, or neither.
    """
    if isinstance(to, Path):
        return to.expanduser()
    if to.endswith("/") or re.match(r"[/~]|\.\.?/", to):
        return Path(to).expanduser()
    if is_address(to):
        repository = parse_address(to)
        if repository.revision:
            raise UserError(f"{to} has a revision, and new files go to the main branch.", option="to")
        return repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", to, re.ASCII):
        raise UserError(f"{to!r} is neither a folder nor a repository.", HOW_TO_NAME, "to")
    if Path(to).parent.exists():
        message = f"{to} is a repository or a folder: there is a folder {Path(to).parent} here."
        raise UserError(message, HOW_TO_NAME, "to")
    return Repository(to)


def _upload(api: Any, target: Repository, folder: Path) -> str:
    """Add the files of a folder to a repository, which is created if it does not exist; no file is
    replaced."""
    api.create_repo(target.name, exist_ok=True)
    present = set(api.list_repo_files(target.name))
    if replaced := sorted(present & {file.name for file in folder.iterdir()}):
        hint = "Choose another name, or delete it on the Hub."
        raise UserError(f"{target} already has a file {replaced[0]}.", hint)
    api.upload_folder(
        repo_id=target.name, folder_path=folder, commit_message="Add a model trained with vaekit"
    )
    return f"{api.endpoint}/{target.name}"


# --- Loading ------------------------------------------------------------------------------------------------


def download(address: str) -> Path:
    """Download the model at hf:USER/NAME or hf:USER/NAME@REVISION into the Hub's cache, unless it is there.

    Returns its folder there.

    Raises:
        UserError: there is no such model, it is not one of vaekit, or huggingface_hub is not installed.
        OSError: the Hub cannot be reached.
    """
    repository, hub, run = parse_address(address), _hub(), Run(Path())
    needed = run.config, run.dataset, run.weights
    with _explained(repository):
        folder = Path(
            hub.snapshot_download(
                repository.name,
                revision=repository.revision,
                allow_patterns=[file.name for file in (*needed, run.latent_prior)],
                library_name="vaekit",
            )
        )
    for file in needed:
        if not (folder / file.name).is_file():
            raise UserError(f"{repository} is not a model of vaekit: it has no {file.name}.")
    return folder


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        hint = "Run `pip install 'vaekit[hub]'`."
        raise UserError("The Hub needs huggingface_hub, which is not installed.", hint) from None
    return huggingface_hub


@contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    """Raise errors of huggingface_hub as one sentence."""
    from huggingface_hub import errors

    http_error: Any = errors.HfHubHTTPError.__bases__[0]  # of its HTTP library, which varies by version
    try:
        yield
    except errors.GatedRepoError:
        hint = f"Accept them on its page. {LOG_IN}"
        raise UserError(f"{repository} is for those who have accepted its terms.", hint) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{repository.name} has no revision {repository.revision!r}.") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"There is no {repository}, or it is private.", LOG_IN) from None
    except errors.HFValidationError as error:
        raise UserError(f"{repository} is no valid name ({str(error).rstrip('.')}).") from None
    except errors.LocalTokenNotFoundError:
        raise UserError("The Hub does not know who you are.", LOG_IN) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            hint = "Log in with a token that may write, by `hf auth login`, or set HF_TOKEN."
            raise UserError(f"The Hub does not permit this for {repository}.", hint) from None
        raise OSError(
            f"The Hub answers {status} for {repository} ({error.server_message or 'no reason'})."
        ) from None
    except (http_error, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, RuntimeError) as error:
        reason = type(error.__cause__ or error).__name__
        raise OSError(f"Cannot reach the Hub for {repository} ({reason}).") from None
