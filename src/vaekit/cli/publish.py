"""`vaekit publish`."""

from typing import Annotated

from cyclopts import Parameter

from vaekit.cli.common import load_model, say
from vaekit.cli.flags import RunFolder


def publish(
    run: RunFolder,
    /,
    *,
    to: Annotated[str, Parameter(help="FOLDER/ with its slash, or USER/NAME on the Hugging Face Hub.")],
    license: str | None = None,
) -> None:
    """Publish a model: its files without private data, new images and a model card.

    For example:
      vaekit publish runs/photos --to published/ --license cc-by-4.0
      vaekit publish runs/photos --to hf:USER/NAME --license apache-2.0

    Folders end with a slash, or begin with /, ./, ../ or ~; USER/NAME and hf:USER/NAME are repositories.
    These are created, public, unless they exist; no file is replaced. vaekit.load("hf:USER/NAME") loads
    the model.

    Args:
        license: Identifier of the licence, such as apache-2.0, mit, cc-by-4.0, or other (required).
    """
    say(f"Wrote {load_model(run).publish(to=to, license=license)}")
