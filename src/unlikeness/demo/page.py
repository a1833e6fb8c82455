"""The page that tells the story: one file, no scripts, nothing from outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from unlikeness.gallery import to_pil

if TYPE_CHECKING:
    from unlikeness.demo.story import Act, DemoSettings

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6575; --paper: #fbfaf7; --card: #fff; --line:
#e3dfd6;
        --good: #22734d; --bad: #a8402d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --soft: #a3abb8; --paper: #14171c; --card:
#1d2128;
        --line: #333a45; --good: #6cc79a; --bad: #ec8d78; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.6 system-ui, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 2.5rem 1.2rem 4rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem } h2 { font-size: 1.3rem; margin: 2.6rem 0 .5rem }
p.lead { font-size: 1.15rem; color: var(--soft); margin-top: 0 }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: .5rem; margin: .7rem
0 1rem }
.row.wide { grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)) }
figure { margin: 0 } img { width: 100%; display: block; border-radius: 6px; border: 1px solid var(--line) }
img.small { image-rendering: pixelated } figcaption { font-size: .82rem; color: var(--soft); margin-top:
.2rem }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line);
border-radius: 6px }
td, th { padding: .45rem .7rem; text-align: left; border-bottom: 1px solid var(--line); font-size: .95rem }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.verdict { border-left: 4px solid var(--soft); padding: .6rem 1rem; background: var(--card); margin: 1.2rem 0
}
.verdict.good { border-color: var(--good) } .verdict.bad { border-color: var(--bad) }
code { font-size: .9em } footer { margin-top: 3rem; color: var(--soft); font-size: .85rem }
"""


def data_uri(image: Image.Image) -> str:
    """A picture as a PNG inside the page."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure(image: Image.Image, caption: str = "", *, small: bool = False) -> str:
    """A picture with its caption. small: shown pixel by pixel."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    kind = ' class="small"' if small else ""
    return f'<figure><img{kind} alt="{escape(caption or "picture")}" src="{data_uri(image)}">{words}</figure>'


def row(images: Tensor, captions: Sequence[str] = ()) -> str:
    """[N, 3, H, W] side by side."""
    words = [*captions, *[""] * (len(images) - len(captions))]
    parts = [figure(to_pil(image), text, small=True) for image, text in zip(images, words, strict=True)]
    return f'<div class="row">{"".join(parts)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns after the first hold numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ["", *[' class="n"'] * (len(cells) - 1)]
        inner = (f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(r, 'td') for r in rows)}</table>"


def page(title: str, body: str) -> str:
    """A whole document."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def difference(before: Tensor, after: Tensor, gain: float = 10.0) -> Tensor:
    """What was changed, `gain` times as strong, around middle grey."""
    return (0.5 + gain * (after - before)).clamp(0, 1)


def verdict(before: float, after: float) -> tuple[str, str]:
    """(kind, sentence) for s before and after: what the figures say, whatever that is."""
    if before < 0.3:
        return "bad", (
            f"The copier did not get far even with the unprotected pictures (s = {before:.2f}), so this run "
            "says nothing about the protection."
        )
    share = after / before
    if share <= 0.6:
        return "good", f"The copy lost most of the likeness: s fell from {before:.2f} to {after:.2f}."
    if share <= 0.85:
        return "", (
            f"The copy lost part of the likeness: s fell from {before:.2f} to {after:.2f}. "
            "Somebody who looks will still recognise the subject in some pictures."
        )
    return "bad", (
        f"The protection did not hold here: s went from {before:.2f} to {after:.2f}. The copier got nearly "
        "as much from the protected pictures."
    )


def write_story(
    path: Path, settings: DemoSettings, record: dict[str, Any], first: Act, second: Act, held_out: Tensor
) -> None:
    """Write the page of the toybox story."""
    noun = settings.class_noun
    kind, sentence = verdict(first.s["value"], second.s["value"])
    places = [record["contexts"][i % len(record["contexts"])] for i in range(len(first.elsewhere))]

    def s_text(act: Act) -> str:
        return f"{act.s['value']:.2f}  [{act.s['low']:.2f}, {act.s['high']:.2f}]"

    figures = table(
        ["", "unprotected", "protected"],
        [
            ["likeness of the copies, s (0: any of its kind, 1: the subject) [95 % interval]", s_text(first),
             s_text(second)],
            ["how badly the model predicts the pictures before training (diffusion loss)",
             f"{first.loss:.4f}", f"{second.loss:.4f}  ({100 * (second.loss / first.loss - 1):+.0f} %)"],
            ["largest change of any colour value, of 255", "0", f"{second.visibility['linf']:.0f}"],
            ["likeness of picture and protected picture, PSNR / SSIM", "–",
             f"{second.visibility['psnr']:.1f} dB / {second.visibility['ssim']:.3f}"],
        ],
    )  # fmt: skip
    shown = min(3, len(first.training))
    trio = torch.stack([first.training, second.training, difference(first.training, second.training)], dim=1)
    compared = row(
        trio[:shown].flatten(0, 1),
        ["the picture", "protected", "what changed, 10 times as strong"] * shown,
    )
    body = f"""
<h1>Five pictures are enough to copy someone</h1>
<p class="lead">Programs that draw pictures from words can be taught a new {escape(noun)}, or a person,
from a handful of photographs. This page shows that happening on a small model that fits on any computer, and
what
protecting the
pictures beforehand changes.</p>
<h2>1. The pictures that were published</h2>
<p>This {escape(noun)} has never been seen by the model. Somebody finds {len(first.training)} pictures of
it.</p>
{row(first.training)}
<h2>2. What the copier gets</h2>
<p>After a few minutes of further training (DreamBooth, {settings.steps} steps) the model draws it on demand.
These
are not photographs; nobody made them but the program, asked for “a photo of sks {escape(noun)}”.</p>
{row(first.plain)}
<p>And in places where it has never been:</p>
{row(first.elsewhere, places)}
<p>For comparison, other real pictures of it, which the copier never had:</p>
{row(held_out)}
<h2>3. Protecting the pictures</h2>
<p>Before publishing, every picture is changed a little: no colour value by more than {settings.budget:g} of
255. To
people it looks nearly the same. The change is computed to mislead a model that learns from it.</p>
{compared}
<h2>4. What the copier gets now</h2>
<p>The same training, the same settings, the same seeds, on the protected pictures.</p>
{row(second.plain)}
<p>In other places:</p>
{row(second.elsewhere, places)}
<div class="verdict {kind}">{escape(sentence)}</div>
<h2>5. The figures</h2>
{figures}
<p>s compares the copies with pictures of the subject that were used in no training, and with other members
of its
class. One subject and one seed: <code>benchmarks/</code> holds the measurements over many.</p>
<h2>What this does not show</h2>
<p>The protection was made against the very model that the copier used, which is the easiest case, and the
copier did
nothing against it: no blurring, no compression, no other model. Protection of pictures raises the price of
copying;
it is no lock. Pictures that are already public stay copyable.</p>
<footer>unlikeness {escape(record["version"])}, method {escape(settings.method)}, seed {settings.seed},
subject
{escape(record["subject_digest"][:12])}. All settings and figures: report.json beside this page.</footer>
"""
    part = path.with_name(f".{path.name}.part")
    part.write_text(page("Five pictures are enough", body), encoding="utf-8")
    part.replace(path)
