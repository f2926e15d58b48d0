"""Runs the operator with a clock that is ahead by the number of seconds in the file of its argument.

Also shortens the timeout of requests to the API server.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from unittest.mock import patch

from ddpm_operator import main
from ddpm_operator.kube import client

REQUEST_SECONDS = 3.0

real_time, offset_file = time.time, Path(sys.argv[1])
with (
    patch.object(time, "time", lambda: real_time() + float(offset_file.read_text())),
    patch.object(client, "REQUEST_TIMEOUT", REQUEST_SECONDS),
    patch.object(main, "REQUEST_TIMEOUT", REQUEST_SECONDS),
):
    sys.exit(main.main())
