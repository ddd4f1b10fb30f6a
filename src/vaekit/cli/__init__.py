"""The command line."""

from vaekit.cli.main import main as main
