"""The script of the original guide: the same command as ``ddpm-sample``."""

import sys

from ddpm_inference.cli import main

if __name__ == "__main__":
    sys.exit(main())
