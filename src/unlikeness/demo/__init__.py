"""`unlikeness demo`: the main job from end to end, told in one HTML page."""

from unlikeness.demo.photographs import protect_photographs
from unlikeness.demo.story import DemoSettings, Judge, run

__all__ = ["DemoSettings", "Judge", "protect_photographs", "run"]
