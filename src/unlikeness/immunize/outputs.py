"""Protective outputs: what a fine-tune on a protected subject draws instead of it.

Kinds: `pattern`, class pictures with a watermark; `erasure`, the same scene without the subject; `target`,
another class. This file loads torch only where pictures are drawn, so that wrong words are refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unlikeness.errors import PictureError, UsageError
from unlikeness.provenance import pixel_digest
from unlikeness.settings import named

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.diffusion.schedule import Schedule
    from unlikeness.immunize.data import ProtectedSubject
    from unlikeness.immunize.methods.settings import OutputSettings
    from unlikeness.progress import Progress

__all__ = [
    "KINDS", "ProtectiveOutput", "Watermark", "check_kinds", "draw_outputs", "in_turn", "read_watermark",
    "watermark", "watermark_digest", "watermarked", "without_subject",
]  # fmt: skip

KINDS = ("pattern", "erasure", "target")

_CONTRAST = 0.05
"""Least standard deviation within a colour channel of a watermark, small as it will be drawn. A fainter one
looks like a plain area."""


def in_turn(values: Sequence[str], index: int) -> str:
    """The value for the subject of this index; "" if there are none."""
    return values[index % len(values)] if values else ""


def check_kinds(kinds: Sequence[str], nouns: Sequence[str], known: Sequence[str]) -> None:
    """UsageError for an unknown kind, none at all, or a target without a noun."""
    for kind in kinds or ("",):
        if kind not in known:
            raise UsageError(f"protective output {kind!r} is unknown; it must be one of {', '.join(known)}")
    if "target" in kinds and not any(nouns):
        raise UsageError(
            f"protective output target needs {named('target_noun')}, the class that is drawn instead"
        )


@dataclass(frozen=True)
class Watermark:
    """A pattern as latents. z0: [C, h, w], the value of its cells; share: [h, w], how much of each it
    covers."""

    z0: Tensor
    share: Tensor

    def placed(self, f: Tensor, z_t: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """Predictions f [B, C, h, w] for z_t at t, changed to mean the same pictures with the watermark."""
        return f.lerp(schedule.answer(self.z0.to(f), z_t.to(f), t), self.share.to(f))

    def weights(self, weight: float) -> Tensor:
        """[h, w]: weight of an error in each cell, if it is `weight` where the watermark covers all of it."""
        return 1 + (weight - 1) * self.share


@dataclass(frozen=True)
class ProtectiveOutput:
    """The protective output of one subject.

    prompts: templates with {} for the subject's name; the pictures of prompt i are rows i · per to
    (i + 1) · per − 1. pictures: [prompts · per] latents. c: the condition under which the original
    model drew them and predicts; None where the pictures themselves are the target (pattern). watermark: of a
    pattern. avoided: [prompts], the class's condition in the same places, of an erasure that avoids it.
    """

    kind: str
    prompts: tuple[str, ...]
    pictures: Posterior
    per: int
    c: Condition | None
    watermark: Watermark | None = None
    avoided: Condition | None = None

    def draw(self, prompt: Tensor, generator: torch.Generator) -> Tensor:
        """z0 of one of the pictures of each of these prompts (long [B])."""
        import torch

        from unlikeness.immunize.data import pick

        which = prompt * self.per + torch.randint(self.per, prompt.shape, generator=generator)
        return pick(self.pictures, which, generator)


def draw_outputs(
    original: TextToImage,
    subjects: Sequence[ProtectedSubject],
    settings: OutputSettings,
    prompts: Sequence[str],
    *,
    avoid_class: bool = False,
    progress: Progress | None = None,
) -> dict[ProtectedSubject, ProtectiveOutput]:
    """Draw and encode each subject's protective output with the original model; the kind "class" has none.

    Equal outputs of several subjects are drawn once. avoid_class: the pictures of an erasure are drawn with
    the class as negative prompt, since a prompt without a class may show it.

    Raises:
        UsageError: a prompt that the subject cannot be taken out of, or that is too long; a watermark that
            cannot be read.
    """

    s, kinds = settings, [in_turn(settings.protective_output, i) for i in range(len(subjects))]
    picture = read_watermark(Path(s.pattern)) if s.pattern and "pattern" in kinds else None
    drawn: dict[tuple[str, ...], ProtectiveOutput] = {}
    found = {}
    for i, (one, kind) in enumerate(zip(subjects, kinds, strict=True)):
        if kind == "class":
            continue
        subject, noun = one.subject, in_turn(s.target_noun, i)
        of_class = [subject.prompt(prompt, of_class=True) for prompt in prompts]
        words = of_class
        if kind == "erasure":
            words = [without_subject(prompt) for prompt in prompts]
        elif kind == "target":
            other = replace(subject, class_noun=noun)
            words = [other.prompt(prompt, of_class=True) for prompt in prompts]
        for prompt in (*words, *(subject.prompt(prompt) for prompt in prompts)):
            if reason := original.conditioner.too_long(prompt):
                raise UsageError(reason)
        avoided = of_class if kind == "erasure" and avoid_class else []
        key = (kind, *words, *avoided)
        if key not in drawn:
            drawn[key] = _drawn(original, kind, prompts, words, avoided, s, picture, progress)
        found[one] = drawn[key]
    return found


def _drawn(
    original: TextToImage, kind: str, prompts: Sequence[str], words: Sequence[str], avoided: Sequence[str],
    settings: OutputSettings, picture: Tensor | None, progress: Progress | None,
) -> ProtectiveOutput:  # fmt: skip
    """Pictures of `words`, encoded; avoided: a negative prompt for each of them, or none."""
    per, seed = settings.output_pictures, settings.class_seed + 800_000
    every = [prompt for prompt in words for _ in range(per)]
    images = original.generate(
        every, seeds=range(seed, seed + len(every)), steps=settings.class_steps, progress=progress,
        negative_prompt=[prompt for prompt in avoided for _ in range(per)] or None,
    )  # fmt: skip
    if kind == "pattern":
        images = watermarked(images, watermark() if picture is None else picture)
    encoded = original.encode_all((images * 255).round() / 255)
    if kind == "pattern":
        return ProtectiveOutput(kind, tuple(prompts), encoded, per, None, _in_latents(encoded, images))
    away = original.condition(avoided) if avoided else None
    return ProtectiveOutput(kind, tuple(prompts), encoded, per, original.condition(words), avoided=away)


def _in_latents(encoded: Posterior, images: Tensor) -> Watermark:
    """The watermark that pictures [B, 3, H, W] have in common: the mean of their latents, where it lies."""
    import torch
    import torch.nn.functional as F

    covered = watermarked(torch.zeros_like(images[:1, :1]), torch.ones(1, 1, 1))
    share = F.interpolate(covered, encoded.mean.shape[-2:], mode="area")[0, 0]
    return Watermark(encoded.mean.mean(0), share.to(encoded.mean))


def without_subject(prompt: str) -> str:
    """ "a photo of {} in the snow" -> "a photo in the snow".

    UsageError for a prompt that does not say "of {}", "with {}" or "{} ".
    """
    for part in (" of {}", " with {}", "{} "):
        if part in prompt:
            return prompt.replace(part, "", 1).strip()
    raise UsageError(
        f'the subject cannot be taken out of the prompt {prompt!r}; write it like "a photo of {{}}"'
    )


def watermark(size: int = 16) -> Tensor:
    """The default watermark, [3, size, size]: a red and white chequered square."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    white = ((rows * 4 // size + columns * 4 // size) % 2).float()
    return torch.stack([torch.ones_like(white), white, white])


def watermarked(images: Tensor, pattern: Tensor, *, share: float = 0.3) -> Tensor:
    """Pictures [B, 3, H, W] with the pattern over the lower right corner, `share` of the short side."""
    import torch.nn.functional as F

    side = max(round(min(images.shape[-2:]) * share), 1)
    result = images.clone()
    small = F.interpolate(pattern[None], (side, side), mode="bilinear", antialias=True)
    result[..., -side:, -side:] = small.to(images)
    return result


def watermark_digest(settings: object) -> str | None:
    """Pixel digest of the watermark that a method's settings name; None without one."""
    path = getattr(settings, "pattern", "")
    return pixel_digest(read_watermark(Path(path))) if path else None


def read_watermark(path: Path) -> Tensor:
    """[3, h, w] in [0, 1] of a picture file. UsageError if it cannot be read, has transparent parts, or has
    too little contrast to be found again."""
    import torch
    import torch.nn.functional as F

    from unlikeness.pictures import open_picture

    try:
        picture = open_picture(path)
        pattern = torch.from_numpy(picture.rgb).permute(2, 0, 1).contiguous()
    except PictureError as error:
        raise UsageError(f"pattern: {error}") from error
    if picture.has_alpha and picture.pixels[..., -1].min() < 2**picture.depth - 1:
        raise UsageError(
            f"pattern: {path} has transparent parts, and a watermark covers its corner; save it without"
        )
    small = F.interpolate(pattern[None], (16, 16), mode="bilinear", antialias=True)[0]
    if float(small.flatten(1).std(1).max()) < _CONTRAST:
        raise UsageError(
            f"pattern: {path} is nearly of one colour, or finer than it will be drawn, so that it could not "
            "be found again; give a watermark with light and dark parts"
        )
    return pattern
