"""`python -m ritornello`, where the command itself is not on the path."""

import sys

from ritornello.cli import main

sys.exit(main())
