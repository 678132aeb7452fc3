"""`python -m trct_monai COMMAND`."""

import sys

from trct_monai.commands import main

if __name__ == "__main__":
    sys.exit(main())
