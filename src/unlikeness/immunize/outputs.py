"""What a protected subject's fine-tune ends in: pictures, and the words that the original drew them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.autoencoders import Posterior
from unlikeness.errors import PictureError, UsageError
from unlikeness.immunize.data import Kept, pick
from unlikeness.immunize.words import BEHAVIOURS, check_words, in_turn, several
from unlikeness.pictures import open_picture
from unlikeness.provenance import pixel_digest

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import Schedule
    from unlikeness.progress import Progress

__all__ = [
    "BEHAVIOURS", "Behaviour", "Mark", "behave", "check_words", "in_turn", "mark", "mark_digest", "notices",
    "read_mark", "several", "stamped", "without_subject",
]  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A pattern as latents. z0: [C, h, w], what its cells hold; share: [h, w], how much of each it covers."""

    z0: Tensor
    share: Tensor

    def placed(self, f: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The answers f [B, C, h, w] to z_t at t, changed to stand for the same pictures with the mark."""
        return torch.lerp(f, schedule.answer(self.z0.to(f), z_t.to(f), t), self.share.to(f))

    def counts(self, weight: float) -> Tensor:
        """[h, w]: how often an error in each cell counts, if `weight` times where the mark covers it all."""
        return 1 + (weight - 1) * self.share


@dataclass(frozen=True)
class Behaviour:
    """The protective output of one subject.

    templates: of prompts about the subject; the pictures of template i are rows i · per .. (i + 1) · per − 1.
    pictures: [templates · per] latents. c: of each template, under which φ drew them, and under which it is
    asked; None where the pictures themselves are the target (pattern). mark: of a pattern. avoided:
    the class's words in the same places, of an erasure that leads away from them.
    """

    kind: str
    templates: tuple[str, ...]
    pictures: Posterior
    per: int
    c: Condition | None
    mark: Mark | None = None
    avoided: Condition | None = None

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
    avoid_class: bool = False,
    drawn: dict[tuple[str, ...], Behaviour] | None = None,
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
        avoid_class: an erasure's pictures are led away from the class (negative prompts), where without the
            subject's words any class may be drawn.
        drawn: what was drawn before, by all that decides it; another subject of the class has the same.

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
        if reason := original.conditioner.too_long(prompt):
            raise UsageError(reason)
    away: list[str] = []
    if kind == "erasure" and avoid_class:
        away = [subject.prompt(template, of_class=True) for template in templates]
    decides = (kind, *prompts, *away)
    if drawn is None or decides not in drawn:
        made = _drawn(original, kind, prompts, away, templates, per, seed, steps, pattern, progress)
        if drawn is None:
            return made
        drawn[decides] = made
    return drawn[decides]


def notices(
    original: TextToImage,
    kept: Sequence[Kept],
    behaviour: str,
    target_noun: str,
    templates: Sequence[str],
    *,
    per: int,
    seed: int,
    steps: int,
    pattern: Path | None = None,
    avoid_class: bool = False,
    progress: Progress | None = None,
) -> dict[int, Behaviour]:
    """By id(kept): the notice of each subject that has one, `behave` with the words that are its turn's.

    pattern: the mark's file, which is read if somebody's notice is a mark. What several share is drawn once.
    """
    kinds = [in_turn(behaviour, i) for i in range(len(kept))]
    picture = read_mark(pattern) if pattern is not None and "pattern" in kinds else None
    drawn: dict[tuple[str, ...], Behaviour] = {}
    return {
        id(one): behave(
            original, one, kind, templates, per=per, seed=seed, steps=steps,
            target_noun=in_turn(target_noun, i), pattern=picture, avoid_class=avoid_class, drawn=drawn,
            progress=progress,
        )
        for i, (one, kind) in enumerate(zip(kept, kinds, strict=True))
        if kind != "class"
    }  # fmt: skip


def _drawn(
    original: TextToImage, kind: str, prompts: Sequence[str], away: Sequence[str], templates: Sequence[str],
    per: int, seed: int, steps: int, pattern: Tensor | None, progress: Progress | None,
) -> Behaviour:  # fmt: skip
    """`per` pictures of each prompt, encoded; with `away`, away from the words there."""
    every = [prompt for prompt in prompts for _ in range(per)]
    images = original.generate(
        every, seeds=range(seed, seed + len(every)), steps=steps, progress=progress,
        negative_prompt=[words for words in away for _ in range(per)] or "",
    )  # fmt: skip
    if kind == "pattern":
        images = stamped(images, mark() if pattern is None else pattern)
    encoded = original.encode_all((images * 255).round() / 255)
    if kind == "pattern":
        return Behaviour(kind, tuple(templates), encoded, per, None, _in_latents(encoded, images))
    avoided = original.condition(away) if away else None
    return Behaviour(kind, tuple(templates), encoded, per, original.condition(prompts), avoided=avoided)


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


_CONTRAST = 0.05
"""Least standard deviation within a colour channel of a mark, small as it will be drawn: fainter ones cannot
be told from a plain area."""


def mark_digest(settings: object) -> str | None:
    """Pixel digest of the mark that a method's settings name; None without one."""
    path = getattr(settings, "pattern", "")
    return pixel_digest(read_mark(Path(path))) if path else None


def read_mark(path: Path) -> Tensor:
    """[3, h, w] in [0, 1] of a picture file. UsageError if it cannot be read, has transparent parts, or is so
    nearly of one colour that nobody could find it again."""
    try:
        picture = open_picture(path)
        pattern = torch.from_numpy(picture.rgb).permute(2, 0, 1).contiguous()
    except PictureError as error:
        raise UsageError(f"pattern: {error}") from error
    if picture.has_alpha and picture.pixels[..., -1].min() < 2**picture.depth - 1:
        raise UsageError(
            f"pattern: {path} has transparent parts, and a mark covers its corner; save it without"
        )
    small = F.interpolate(pattern[None], (16, 16), mode="bilinear", antialias=True)[0]
    if float(small.flatten(1).std(1).max()) < _CONTRAST:
        raise UsageError(
            f"pattern: {path} is nearly of one colour, or finer than it will be drawn, so that it could not "
            "be found again; give a mark with light and dark parts"
        )
    return pattern
