"""The script of the original guide: the same command as ``ddpm-sample``."""

import os
import sys

# Python puts the folder of a script first. A file there must not be imported instead of a package such as torch.
FOLDER = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib imports much, still from that folder
sys.path[:] = [*(path for path in sys.path if path != FOLDER), FOLDER]

from ddpm_inference.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
