"""`python -m runner` is `steprun`."""

from runner.cli.main import entry

entry()
