"""The page of the story, for readers who have never heard of diffusion models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.demo.page import GAIN, difference
from unlikeness.demo.settings import DemoSettings
from unlikeness.demo.words import count_word, how, learnt, verdict
from unlikeness.files import write_text
from unlikeness.html import fill, show
from unlikeness.subjects import with_article

__all__ = ["Report", "write_report"]

_ACTS = {
    "before": "before any training",
    "clean": "untouched pictures",
    "protected": "protected pictures",
    "noise": "pictures with noise",
}
"""The acts in their order, and the pictures of each attacker."""

_SHOWN = 6
"""Pictures of one kind on the page."""


@dataclass(frozen=True)
class Report:
    """What the page shows. record: the content of report.json.

    learnt_from: the attacker's pictures by act (clean, protected, noise). drawn: the generated pictures by
    act ("before" as well), under "plain" and "elsewhere". held_out: pictures of the subject that no training
    had. places: the context of each picture "elsewhere".
    """

    settings: DemoSettings
    record: Mapping[str, Any]
    learnt_from: Mapping[str, Tensor]
    drawn: Mapping[str, Mapping[str, Tensor]]
    held_out: Tensor
    places: Sequence[str]


def write_report(path: Path, t: Report) -> None:
    """Write the page, whole or not at all."""
    s, acts, noun = t.settings, t.record["acts"], t.settings.class_noun
    many = f"{count_word(s.pictures)} picture{'s' if s.pictures > 1 else ''}"
    before = acts["before"]["s"]
    works = learnt(acts["clean"]["s"], before)
    were = "were" if s.pictures > 1 else "was"
    end = f" {were} enough to copy this {noun}" if works else ", and what an attacker makes of them"
    clean, protected = t.learnt_from["clean"], t.learnt_from["protected"]
    n, changed = min(_SHOWN, s.generated), min(2, len(clean))
    trio = torch.stack(
        [clean[:changed], protected[:changed], difference(clean[:changed], protected[:changed])], dim=1
    )
    rows = ["before", "protected", f"the difference, {GAIN} times as strong"] * changed
    if "noise" in t.learnt_from:
        control = t.learnt_from["noise"]
        noisy = torch.stack([clean[0], control[0], difference(clean[0], control[0])])
        trio = torch.cat([trio, noisy[None]])
        rows += ["before", "with plain noise", f"the noise, {GAIN} times as strong"]
    places = [place.capitalize() for place in t.places]
    text = fill(
        "story.html",
        title=many.capitalize() + end,
        noun=noun,
        a_noun=with_article(noun),
        many=many,
        settings=s,
        record=t.record,
        learnt=works,
        found=verdict(acts["clean"]["s"], acts["protected"]["s"], acts.get("noise", {}).get("s"), before),
        opening=show(
            [clean[0], t.drawn["clean"]["plain"][0], t.drawn["protected"]["plain"][0]],
            ["A published picture", "Made by the attacker", "Made by the attacker after protection"],
        ),
        published=show(clean),
        before=show(t.drawn["before"]["plain"][:n]),
        copied=show(t.drawn["clean"]["plain"][:n]),
        elsewhere=show(t.drawn["clean"]["elsewhere"][:_SHOWN], places),
        linf=acts["protected"].get("linf", 0.0),
        how=how(s.method),
        side=clean.shape[-1],
        changed=show(trio.flatten(0, 1), rows),
        control="noise" in t.drawn,
        across=n,
        compared=[(f"Trained on {_ACTS[name]}", _drawn(t, name, n)) for name in t.learnt_from],
        itself=show(t.held_out[:n]),
        similarity=[(_ACTS[name], act["s"]) for name, act in acts.items()],
        generated=s.generated,
        head=["", *[_ACTS[name] for name in t.learnt_from]],
        figures=_figures([acts[name] for name in t.learnt_from]),
    )
    write_text(path, text, errors="replace")


def _drawn(t: Report, name: str, n: int) -> list[Any]:
    """Two rows of one act: at the training prompt, and in new contexts."""
    places = [place.capitalize() for place in t.places[:n]]
    return show(t.drawn[name]["plain"][:n]) + show(t.drawn[name]["elsewhere"][:n], places)


def _figures(acts: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows of the table. The first act is the clean one."""

    def cells(name: str, style: str) -> list[str]:
        return [style.format(act[name]) if name in act else "–" for act in acts]

    loss = acts[0]["loss"]
    grown = [
        f"{act['loss']:.4f}" + (f" ({act['loss'] / loss - 1:+.0%})" if i else "")
        for i, act in enumerate(acts)
    ]
    return [
        ["similarity of the copies, s", *[f"{act['s']['value']:.2f}" for act in acts]],
        ["its 95 % interval", *[f"{act['s']['low']:.2f} to {act['s']['high']:.2f}" for act in acts]],
        ["how badly the untrained generator predicts the pictures (diffusion loss)", *grown],
        ["largest change of a colour value, of 255", *cells("linf", "{:.3g}")],
        ["closeness to the original, PSNR (more is closer) [dB]", *cells("psnr", "{:.1f}")],
        ["closeness to the original, SSIM (1 is identical)", *cells("ssim", "{:.3f}")],
    ]
