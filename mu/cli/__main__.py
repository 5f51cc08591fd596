"""`python -m mu.cli` is `mu`."""

from mu.cli.commands import main

main()
