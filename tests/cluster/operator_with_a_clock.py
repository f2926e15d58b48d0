"""The operator with a machine's clock that a test sets: as many seconds ahead as the file it is given says.

It waits for a few seconds only for an answer of the API server.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from unittest.mock import patch

from ddpm_operator import main
from ddpm_operator.kube import client

PATIENCE = 3.0

right, ahead = time.time, Path(sys.argv[1])
with (
    patch.object(time, "time", lambda: right() + float(ahead.read_text())),
    patch.object(client, "REQUEST_TIMEOUT", PATIENCE),
    patch.object(main, "REQUEST_TIMEOUT", PATIENCE),
):
    sys.exit(main.main())
