"""``python -m rali_zoo``: the same as the script ``rali-zoo``."""

import sys

from rali_zoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
