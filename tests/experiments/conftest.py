"""The fixtures of the benchmarks' tests."""

from __future__ import annotations

from tests.benchmarks.conftest import apart, judge, model

__all__ = ["apart", "judge", "model"]
