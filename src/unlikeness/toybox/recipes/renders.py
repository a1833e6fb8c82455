"""Renders of the world for training: what each recipe draws, and the store that keeps it.

Every picture is a function of (seed, index) alone, so that a store can be made again anywhere. Every stream
of random numbers has a number of its own, so that no two meet. All cores render into a memory-mapped file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from unlikeness.endings import follow_parent
from unlikeness.errors import UnlikenessError
from unlikeness.files import sync, write_text
from unlikeness.progress import Progress, Silent
from unlikeness.toybox.world import (
    CLASS_NOUNS,
    SIZE,
    Identity,
    Scene,
    describe,
    sample_identity,
    sample_picture,
    sample_scene,
    to_images,
)

Pixels = npt.NDArray[np.uint8]
Draw = Callable[[int, int], tuple[Scene, str]]
"""(seed, index) -> a scene and its label or caption. A top-level function, so that processes can share it."""

CHUNK = 500


_PICTURE, _NAMED, _NAMES, _CAST, _VIEW = 1, 2, 3, 4, 5

NAMED_SUBJECTS = 400
NAMED_SHARE = 0.25
VIEWS = 8
"""Pictures of each individual of the identity encoder's training."""

RESERVED = frozenset({"sks", "t@t", "xjy", "hta", "xyz", "zwx", "ohw", "kqs"})
"""Identifiers of attackers and tests. No training caption has them."""


@cache
def named_subjects() -> list[tuple[str, Identity]]:
    """The rare words of the training captions, each with its own fixed subject."""
    rng = np.random.default_rng(_NAMES)
    names: dict[str, Identity] = {}
    while len(names) < NAMED_SUBJECTS:
        name = "".join(rng.choice(list("bcdfghjklmnpqrstvwxz@"), 3))
        if name not in RESERVED and name not in names:
            noun = CLASS_NOUNS[len(names) % len(CLASS_NOUNS)]
            names[name] = sample_identity(np.random.default_rng((_NAMED, len(names))), noun)
    return list(names.items())


def captioned(seed: int, index: int) -> tuple[Scene, str]:
    """Any individual in any scene, and a caption; a quarter of the time a named one, by its name."""
    rng = np.random.default_rng((_PICTURE, seed, index))
    if rng.random() >= NAMED_SHARE:
        return sample_picture(rng)
    name, who = named_subjects()[int(rng.integers(NAMED_SUBJECTS))]
    scene = sample_scene(rng, who)
    return scene, describe(rng, scene, name)


def classed(seed: int, index: int) -> tuple[Scene, str]:
    """Any individual in any scene; the label is "class noun|context"."""
    scene, _ = sample_picture(np.random.default_rng((_PICTURE, seed, index)))
    return scene, f"{scene.who.class_noun}|{scene.context}"


def viewed(seed: int, index: int) -> tuple[Scene, str]:
    """`VIEWS` views of one individual after another; the label is "class noun|number of the individual"."""
    number = index // VIEWS
    noun = CLASS_NOUNS[number % len(CLASS_NOUNS)]
    who = sample_identity(np.random.default_rng((_CAST, seed, number)), noun)
    return sample_scene(np.random.default_rng((_VIEW, seed, index)), who), f"{noun}|{number}"


@dataclass(frozen=True)
class Renders:
    """pixels: uint8 [N, 64, 64, 3], memory-mapped. labels: one string a picture (a caption or a class)."""

    pixels: Pixels
    labels: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: npt.NDArray[np.int64] | Tensor) -> Tensor:
        """Pictures as float32 [B, 3, 64, 64] in [0, 1]."""
        return to_images(self.pixels[np.asarray(index)])


def _chunk(draw: Draw, seed: int, start: int, count: int) -> tuple[Pixels, list[str]]:
    pixels = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    labels = []
    for i in range(count):
        scene, label = draw(seed, start + i)
        pixels[i] = scene.render()
        labels.append(label)
    return pixels, labels


def render_many(
    draw: Draw,
    count: int,
    *,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Renders:
    """`count` pictures drawn by `draw(seed, 0 ...)`, kept in `folder` and reused from there."""
    name = f"{draw.__name__}-{seed}-{count}"
    pixel_file, label_file = folder / f"{name}.npy", folder / f"{name}.json"
    if not (pixel_file.exists() and label_file.exists()):
        _render_to(draw, count, seed, pixel_file, label_file, progress or Silent(), workers)
    pixels: Any = np.load(pixel_file, mmap_mode="r")
    labels = json.loads(label_file.read_text())
    if pixels.shape != (count, SIZE, SIZE, 3) or len(labels) != count:
        raise UnlikenessError(f"{pixel_file} does not hold {count} renders; delete it, and it is made again")
    return Renders(pixels, labels)


def _render_to(
    draw: Draw,
    count: int,
    seed: int,
    pixel_file: Path,
    label_file: Path,
    progress: Progress,
    workers: int | None,
) -> None:
    pixel_file.parent.mkdir(parents=True, exist_ok=True)
    work = pixel_file.with_suffix(".part")
    pixels = np.lib.format.open_memmap(work, mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3))
    labels: list[str] = []
    starts = range(0, count, CHUNK)
    progress.start(count, "rendering", "picture")
    with ProcessPoolExecutor(workers or os.cpu_count(), get_context("spawn"), follow_parent) as pool:
        job = partial(_chunk, draw, seed)
        for start, (part, names) in zip(
            starts, pool.map(job, starts, [min(CHUNK, count - s) for s in starts]), strict=True
        ):
            pixels[start : start + len(names)] = part
            labels += names
            progress.advance(len(names))
    pixels.flush()
    del pixels
    progress.close()
    write_text(label_file, json.dumps(labels))
    sync(work)
    work.replace(pixel_file)
