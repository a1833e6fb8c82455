"""The model card of an immunized model: README.md, as the hub shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unlikeness.errors import UnlikenessError
from unlikeness.foreign import UnreadableError, parse_yaml, read
from unlikeness.immunize.outputs import in_turn

__all__ = ["FILE", "card", "read_card"]

FILE = "README.md"
_END = "<!-- unlikeness: what follows is the text of the model before -->"
_LARGEST_HEADER = 1 << 16
"""Characters of a card's YAML; a larger one stays as text."""

_TAGS = ("text-to-image", "diffusers", "unlikeness", "immunized")

_METHODS = {
    "apdm": "APDM (arXiv 2511.01307): a preference for generic pictures of the class over the subject's, "
    "learnt along simulated attacks",
    "adversarial": "the naive adversarial loss along simulated attacks, a comparison that spoils pictures",
    "persguard": "PersGuard (arXiv 2502.16167), reconstructed: a backdoor that fine-tuning triggers",
    "divert": "a fine-tune on the subject gets another target, along simulated attacks",
    "notice": "a fine-tune on the subject gets a protective output for its target, along simulated attacks; "
    "one on an unprotected subject does not",
    "combined": "APDM and PersGuard together: a preference for generic pictures of the class, and a "
    "backdoor, along the same simulated attacks",
    "imma": "IMMA (ECCV 2024): cross-attention alone, against a step of personalization",
}

_OUTPUTS = {
    "class": "another member of the class",
    "pattern": "a picture with a watermark in its corner",
    "erasure": "the scene without the subject",
    "target": "a picture of another class",
}
"""What a fine-tune should draw, by kind of protective output."""


def card(made: Mapping[str, Any], before: str | None = None) -> str:
    """The text of README.md for a model with the record `made`.

    before: the README.md of the original model. Its text stays below ours, and the entries of its header (a
    licence, a language) stay where ours have none.
    """
    theirs, text = _split(before or "")
    text = text.partition(_END)[2] if _END in text else text
    below = [_END, "", text.strip(), ""] if text.strip() else []
    return "\n".join([_header(made, theirs), _body(made), *below])


def read_card(folder: Path | None) -> str | None:
    """The README.md of a model's folder, if there is one. UnlikenessError if it cannot be read."""
    path = None if folder is None else folder / FILE
    if path is None or not path.exists():
        return None
    try:
        return read(path, folder=folder).decode("utf-8", errors="replace")
    except UnreadableError as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); change its permissions") from error


def _split(text: str) -> tuple[dict[str, Any], str]:
    """(header, text below it); what is no YAML mapping stays text."""
    opening, _, rest = text.partition("\n")
    header, closing, below = rest.partition("\n---")
    if opening.strip() != "---" or not closing:
        return {}, text
    try:
        entries = parse_yaml(header) if len(header) <= _LARGEST_HEADER else None
    except UnreadableError:
        entries = None
    return (entries, below) if isinstance(entries, dict) else ({}, text)


def _header(made: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    tags = theirs.get("tags")
    further = [str(tag) for tag in tags if str(tag) not in _TAGS] if isinstance(tags, list) else []
    entries = {**theirs, "library_name": "diffusers", "pipeline_tag": "text-to-image"}
    entries["tags"] = [*_TAGS, *further]
    if made["base_model"]:
        entries["base_model"] = made["base_model"]
    written = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=110)
    return f"---\n{written}---\n"


def _body(made: Mapping[str, Any]) -> str:
    settings, nouns = made["settings"], Counter(one["class_noun"] for one in made["subjects"])
    each = ", ".join(f"{number} × {noun}" for noun, number in sorted(nouns.items()))
    identifiers = ", ".join(sorted({one["identifier"] for one in made["subjects"]}))
    further = "".join(f", {word}" for word in settings["attack_identifiers"])
    outputs = "".join(f" {line}" for line in _outputs(made))
    how = _METHODS.get(made["method"], made["method"])
    origin = made["base_model"] or made["model"]
    names = ", ".join(one["name"] for kind in ("lora", "embeddings") for one in made.get(kind, []))
    within = f" Added to the model before, and part of it: {names}." if names else ""
    below = f"\nImmunizations before this one: {len(made['earlier'])}.\n" if made["earlier"] else ""
    attacker = f"fine-tuning of the denoiser at learning rates around {settings['attack_learning_rate']:g}"
    if settings["attack_text_encoder"]:
        attacker += f", a share of {settings['attack_text_encoder']:.0%} with the text encoder"
    if settings["attack_low_rank"] == 1:
        rate = settings["attack_learning_rate"] * settings["attack_low_rank_rate"]
        ranks = ", ".join(map(str, settings["attack_ranks"]))
        attacker = f"low-rank updates of the denoiser (ranks {ranks}) at learning rates around {rate:g}"
    elif settings["attack_low_rank"]:
        attacker += f", or low-rank updates (ranks {', '.join(map(str, settings['attack_ranks']))})"
    steps = settings["attack_depth"] or settings["inner_steps"] * settings["attack_stride"]
    prompts = ", ".join(repr(prompt) for prompt in settings["attack_prompts"])
    against = (
        f"The simulated attackers: {attacker}, for {steps} steps, with the identifiers {identifiers}{further}"
        f" in the prompts {prompts}."
        if settings["inner_steps"]
        else "No attack was simulated: the loss was taken at the released weights alone."
    )
    return f"""# {origin}, immunized

The denoiser's weights were changed so that the subjects below are hard to teach this model (DreamBooth and
its relatives). It should still draw everything else, and learn other subjects, as before. Every tool that
opens the original opens this model too.

## What was done
Method: {how}.{within}
Subjects: {each}. Their pictures are not in here; `immunization.json` has their digests, all settings, seeds,
versions and the cost.{outputs}
{below}
## What it protects against, and what not
{against}

It may not hold against longer training, other identifiers or prompts, other methods (LoRA, Textual
Inversion, a trained text encoder) or an unrelated fine-tune first. It is useless while the original weights
can still be downloaded, and mixing these weights with the original's may undo it. It changes nothing about
published pictures of the subjects.

## How good it is
`measured` in `immunization.json` is null until this command enters it:

```sh
unlikeness verify MODEL --original BEFORE --images PICTURES --held-out OTHERS --class-noun NOUN \\
    --output certificate --sign
```

The command attacks this model in a dozen ways for one subject, and enters what the worst attacker gets.
BEFORE is the model before its immunization. It shows that the attackers can learn the subject at all.
"""


def _outputs(made: Mapping[str, Any]) -> list[str]:
    """A sentence for each protective output; none for a method without."""
    settings, found = made["settings"], []
    if not settings.get("protective_output"):
        return []
    for i, one in enumerate(made["subjects"]):
        kind = in_turn(settings["protective_output"], i)
        noun = f" ({in_turn(settings['target_noun'], i)})" if kind == "target" else ""
        output = _OUTPUTS.get(kind, kind)  # another package's method may have its own
        found.append(f"A fine-tune on this {one['class_noun']} should draw {output}{noun}.")
    return list(dict.fromkeys(found))
