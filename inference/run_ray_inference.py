"""The command of the guide. The same as ``ddpm-sample``."""

import sys

from ddpm_inference.cli import main

if __name__ == "__main__":
    sys.exit(main())
