"""`python -m converter.command`, where the script is not on the path."""

import sys

from converter.command import main

sys.exit(main())
