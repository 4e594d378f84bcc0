"""`python -m counterfault` is the `counterfault` command."""

import sys

from counterfault.proxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
