"""The operator with a machine's clock that a test sets: as many seconds ahead as the file it is given says."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from unittest.mock import patch

from ddpm_operator.main import main

right, ahead = time.time, Path(sys.argv[1])
with patch.object(time, "time", lambda: right() + float(ahead.read_text())):
    sys.exit(main())
