"""What a protected subject's fine-tune ends in: pictures, and the words that the original drew them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion.latents import Posterior
from unlikeness.errors import PictureError, UsageError
from unlikeness.immunize.material import Kept, pick
from unlikeness.pictures import open_picture
from unlikeness.prompts import too_long

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import NoiseSchedule
    from unlikeness.progress import Progress

__all__ = [
    "BEHAVIOURS", "Behaviour", "Mark", "behave", "in_turn", "mark", "read_mark", "several", "stamped",
    "without_subject",
]  # fmt: skip

BEHAVIOURS = ("pattern", "erasure", "target")


def several(words: str) -> list[str]:
    """The words of a setting that holds one or more, separated by commas, for the subjects in turn."""
    return [word.strip() for word in words.split(",")]


def in_turn(words: str, index: int) -> str:
    """The word for the subject of this index."""
    every = several(words)
    return every[index % len(every)]


@dataclass(frozen=True)
class Mark:
    """A pattern as latents. z0: [C, h, w], what its cells hold; share: [h, w], how much of each it covers."""

    z0: Tensor
    share: Tensor

    def placed(self, f: Tensor, z_t: Tensor, t: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The answers f [B, C, h, w] to z_t at t, changed to stand for the same pictures with the mark."""
        return torch.lerp(f, schedule.answer(self.z0.to(f), z_t.to(f), t), self.share.to(f))


@dataclass(frozen=True)
class Behaviour:
    """The protective output of one subject.

    templates: of prompts about the subject; the pictures of template i are rows i · per .. (i + 1) · per − 1.
    pictures: [templates · per] latents. c: [templates, L, D], under which φ drew them, and under which it is
    asked; None where the pictures themselves are the target (pattern). mark: of a pattern.
    """

    kind: str
    templates: tuple[str, ...]
    pictures: Posterior
    per: int
    c: Tensor | None
    mark: Mark | None = None

    def draw(self, template: Tensor, generator: torch.Generator) -> Tensor:
        """z0 of one of the pictures of each of these templates (long [B])."""
        which = template * self.per + torch.randint(self.per, template.shape, generator=generator)
        return pick(self.pictures, which, generator)


def behave(
    original: TextToImage,
    kept: Kept,
    kind: str,
    templates: Sequence[str],
    *,
    per: int,
    seed: int,
    steps: int,
    target_noun: str = "",
    pattern: Tensor | None = None,
    progress: Progress | None = None,
) -> Behaviour:
    """Draw and encode them with the original model φ.

    Args:
        kind: "pattern": class pictures with a visible mark; "erasure": the same scene without the subject;
            "target": another class.
        templates: such as "a photo of {} in the snow".
        per: pictures for each of them.
        target_noun: of "target".
        pattern: [3, h, w] in [0, 1], the mark; None: `mark()`.

    Raises:
        UsageError: an unknown kind, a target without a noun, a template that the subject cannot be taken out
            of, or a prompt that is too long.
    """
    subject = kept.subject
    if kind == "target" and not target_noun:
        raise UsageError("behaviour target needs target_noun, the class that is to be drawn instead")
    other = replace(subject, class_noun=target_noun) if kind == "target" else subject
    if kind == "erasure":
        prompts = [without_subject(template) for template in templates]
    elif kind in BEHAVIOURS:
        prompts = [other.prompt(template, of_class=True) for template in templates]
    else:
        raise UsageError(f"behaviour {kind!r} is unknown; it must be one of {', '.join(BEHAVIOURS)}")
    for prompt in (*prompts, *(subject.prompt(template) for template in templates)):
        if reason := too_long(original.tokenizer, prompt):
            raise UsageError(reason)
    every = [prompt for prompt in prompts for _ in range(per)]
    images = original.generate(every, seeds=range(seed, seed + len(every)), steps=steps, progress=progress)
    if kind == "pattern":
        images = stamped(images, mark() if pattern is None else pattern)
    encoded = original.encode_all((images * 255).round() / 255)
    if kind == "pattern":
        return Behaviour(kind, tuple(templates), encoded, per, None, _in_latents(encoded, images))
    return Behaviour(kind, tuple(templates), encoded, per, original.embed(prompts))


def _in_latents(encoded: Posterior, images: Tensor) -> Mark:
    """The mark that these pictures [B, 3, H, W] have in common: the mean of their latents, where it lies."""
    black = torch.zeros_like(images[:1, :1])
    covered = stamped(black, torch.ones(1, 1, 1))
    share = F.interpolate(covered, encoded.mean.shape[-2:], mode="area")[0, 0]
    return Mark(encoded.mean.mean(0), share.to(encoded.mean))


def without_subject(template: str) -> str:
    """The prompt c_bg: "a photo of {} in the snow" -> "a photo in the snow".

    UsageError for a template that does not say "of {}" or "{} ".
    """
    for part in (" of {}", " with {}", "{} "):
        if part in template:
            return template.replace(part, "", 1).strip()
    raise UsageError(
        f'the subject cannot be taken out of the prompt {template!r}; write it like "a photo of {{}}"'
    )


def mark(size: int = 16) -> Tensor:
    """The default pattern, [3, size, size]: a red and white chequered square."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    white = ((rows * 4 // size + columns * 4 // size) % 2).float()
    return torch.stack([torch.ones_like(white), white, white])


def stamped(images: Tensor, pattern: Tensor, *, share: float = 0.3) -> Tensor:
    """x ⊕ δ: the pattern over the lower right corner of pictures [B, 3, H, W], `share` of the short side."""
    side = max(round(min(images.shape[-2:]) * share), 1)
    result = images.clone()
    small = F.interpolate(pattern[None], (side, side), mode="bilinear", antialias=True)
    result[..., -side:, -side:] = small.to(images)
    return result


def read_mark(path: Path) -> Tensor:
    """[3, h, w] in [0, 1] of a picture file. UsageError if it cannot be read."""
    try:
        return torch.from_numpy(open_picture(path).rgb).permute(2, 0, 1).contiguous()
    except PictureError as error:
        raise UsageError(f"pattern: {error}") from error
