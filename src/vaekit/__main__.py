"""`python -m vaekit` is `vaekit`."""

from vaekit.cli.main import main

main()
