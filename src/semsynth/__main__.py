"""`python -m semsynth` is the same as `semsynth`."""

from __future__ import annotations

import sys

from semsynth.cli import main

if __name__ == "__main__":
    sys.exit(main())
