"""Measures of a protection: visibility, similarity to a subject, distances between sets of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlikeness import looked_up

if TYPE_CHECKING:
    from unlikeness.measure.distribution import frechet_distance, kernel_distance, kernel_distance_subsets
    from unlikeness.measure.intervals import Interval, bootstrap_mean
    from unlikeness.measure.latents import LatentReport, displacements
    from unlikeness.measure.matching import matched
    from unlikeness.measure.patterns import FlatPattern, flat_pattern
    from unlikeness.measure.report import PictureVisibility, VisibilityReport, compare, compare_pictures
    from unlikeness.measure.similarity import (
        Embedder,
        Pairs,
        SubjectSimilarity,
        mean_similarity,
        pair_similarities,
        subject_similarity,
    )  # fmt: skip
    from unlikeness.measure.visibility import linf, psnr, ssim

__all__ = [
    "Embedder", "FlatPattern", "Interval", "LatentReport", "Pairs", "PictureVisibility", "SubjectSimilarity",
    "VisibilityReport", "bootstrap_mean", "compare", "compare_pictures", "displacements", "flat_pattern",
    "frechet_distance", "kernel_distance", "kernel_distance_subsets", "linf", "matched", "mean_similarity",
    "pair_similarities", "psnr", "ssim", "subject_similarity",
]  # fmt: skip

__getattr__ = looked_up(
    __name__,
    {
        "distribution": ("frechet_distance", "kernel_distance", "kernel_distance_subsets"),
        "intervals": ("Interval", "bootstrap_mean"),
        "latents": ("LatentReport", "displacements"),
        "matching": ("matched",),
        "patterns": ("FlatPattern", "flat_pattern"),
        "report": ("PictureVisibility", "VisibilityReport", "compare", "compare_pictures"),
        "similarity": (
            "Embedder", "Pairs", "SubjectSimilarity", "mean_similarity", "pair_similarities",
            "subject_similarity",
        ),
        "visibility": ("linf", "psnr", "ssim"),
    },
)  # fmt: skip
