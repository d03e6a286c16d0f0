"""`python -m genet` is `genet`."""

import sys

from genet.cli.main import main

if __name__ == "__main__":  # the worker processes of the trials read this file too
    sys.exit(main())
