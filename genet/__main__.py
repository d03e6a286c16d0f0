"""`python -m genet` is `genet`."""

import sys

from genet.cli import main

sys.exit(main())
