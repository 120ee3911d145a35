"""`python -m tandem.cli`, for where the `tandem` script is not on the path."""

import sys

from tandem.cli.main import main

sys.exit(main())
