"""`python -m lit_gans <verb>`."""

import sys

from lit_gans.cli import main

sys.exit(main())
