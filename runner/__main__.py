"""`python -m runner` is `steprun`."""

import sys

from runner.cli.main import main

sys.exit(main())
