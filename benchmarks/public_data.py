"""Where the benchmarks look for public data sets."""

from __future__ import annotations

import os
from pathlib import Path

#: Where they are, if at all: `PESS_DATA`, by default `../shared/data` from the repository.
DATA = Path(__file__).resolve().parent.parent / os.environ.get("PESS_DATA", "../shared/data")
