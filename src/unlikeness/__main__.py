"""`python -m unlikeness` is the command line."""

from __future__ import annotations

import sys

from unlikeness.cli import main

sys.exit(main())
