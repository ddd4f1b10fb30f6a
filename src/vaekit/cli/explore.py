"""The latent space in a browser: `explore`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vaekit.cli.common import load_model, say
from vaekit.cli.flags import RunFolder
from vaekit.errors import UserError


def explore(
    run: RunFolder,
    /,
    *,
    port: int = 0,
    no_browser: Annotated[bool, Parameter(negative=())] = False,
    table: Path | None = None,
) -> None:
    """Explore the latent space in a browser, on this machine only.

    Args:
        port: Port on 127.0.0.1 (default: a free one).
        no_browser: Do not open the page in the browser.
        table: CSV, JSON or Parquet file with a row per image: its columns colour the map.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"must be between 0 and 65,535 (got {port}).", option="port")
    _require_server()
    import webbrowser
    from functools import partial

    from vaekit.explorer.explorer import Explorer
    from vaekit.explorer.server import serve
    from vaekit.explorer.table import table_columns

    if table is not None and not table.is_file():
        raise UserError(f"{table} does not exist.", "Give a table with a row per image.", "table")
    columns = partial(table_columns, table) if table is not None else lambda _: ()
    explorer = Explorer(load_model(run).loaded, columns)

    def opened(address: str) -> None:
        say(f"Explore {run} at {address}")
        say("Press Ctrl-C to stop.")
        if not no_browser:
            webbrowser.open(address)

    serve(explorer, port, opened)


def _require_server() -> None:
    """Raise a UserError if the packages of the server are not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        hint = "Run `pip install 'vaekit[explore]'`."
        raise UserError("The explorer needs Starlette and uvicorn, which are not installed.", hint) from None
