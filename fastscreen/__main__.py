"""`python -m fastscreen` is `fastscreen`."""

import sys

from fastscreen.entry import main

if __name__ == "__main__":
    sys.exit(main())
