"""Bounds that commands and library share, in a module that loads nothing."""

from __future__ import annotations

__all__ = ["MAX_PIXELS"]

MAX_PIXELS = 210_000_000
"""Default bound on width × height: the largest cameras and telephones have 200 megapixels."""
