"""Picture -> picture, the attacker's way: what may wash a protection out before a model learns from it.

    washed = purify.create("jpeg", settings={"quality": 50}).purify(images, seeds=range(len(images)))

A new method is a file with a settings class and a class with `purify`, and one `register` line below.
"""

from __future__ import annotations

from unlikeness.purify.registry import METHODS, create, method

names = METHODS.names
register = METHODS.register

register("jpeg", "unlikeness.purify.jpeg:Jpeg")
register("resize", "unlikeness.purify.resize:Resize")
register("blur", "unlikeness.purify.blur:Blur")
register("noise", "unlikeness.purify.noise:Noise")
register("median", "unlikeness.purify.median:Median")
register("vae", "unlikeness.purify.vae:Vae")

__all__ = ["create", "method", "names", "register"]
