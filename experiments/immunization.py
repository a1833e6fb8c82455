"""Does an immunized model refuse a subject, at its worst attacker, and does everything else still work?

    python -m experiments.immunization
    python -m experiments.immunization --rows none,apdm --attackers paper,lora-4 --subjects 2
    python -m experiments.immunization --tuning --rows divert-lora,divert-lora-guided --skip 1 --subjects 2

Per row (a method and its settings) and unseen subject: the model is immunized; every attacker of `unlikeness
verify` personalizes it, and s is measured on held-out references. Two unprotected subjects, one of the same
class and one of another, are personalized too, and class images are compared with renders and with the
original's. "none" is the original model. Attacks have three strengths (`STRENGTHS`); the gentle one is the
default, because the others succeed on random weights too. With `--tuning` the subjects are those on which
settings are chosen, and the figures go into another file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.judging import TRAINING, Judge
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import attacking, common, personalization, protection
from experiments.immunization_tables import (
    CLASS_PICTURES,
    OTHERS,
    STRENGTHS,
    render,
    sheet,
    sum_up,
)
from experiments.immunizing import ENGINE, Maker, captions, opened, others_of, protective_of, shares
from experiments.rows import MAIN, ROWS, rows_of, settings_of
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.errors import UsageError
from unlikeness.gallery import grid
from unlikeness.measure.distribution import frechet_distance, precision_recall
from unlikeness.presets import preset_values
from unlikeness.settings import build
from unlikeness.subjects import with_article
from unlikeness.toybox.cast import Member, class_pictures, unseen
from unlikeness.toybox.evaluators import load_classifier
from unlikeness.verify.attack import Priors, run_attacker
from unlikeness.verify.attackers import EVERY, GRAY_BOX, Attacker
from unlikeness.verify.quality import diversity
from unlikeness.verify.settings import VerifySettings

__all__ = ["CODE", "NAME", "Bench", "cli", "pools", "possible", "render"]

NAME = "immunization"
TUNING = f"{NAME}_tuning"
CODE = (*attacking.CODE, *ENGINE, "src/unlikeness/verify")


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--subjects", type=int, default=8, help="unseen subjects, the class nouns in turn")
    parser.add_argument("--skip", type=int, default=0, help="of these the first so many: another process's")
    parser.add_argument("--rows", default=",".join(MAIN))
    parser.add_argument(
        "--attackers", default="all", help="names of unlikeness verify's, separated by commas"
    )
    parser.add_argument("--strengths", default="gentle", help=f"of {', '.join(STRENGTHS)}")
    parser.add_argument("--others", default="same class,another class", help="unprotected subjects, or none")
    parser.add_argument("--tuning", action="store_true", help="tuning subjects, in a file of their own")
    args = parser.parse_args(argv)
    rows = rows_of(args.rows)
    name = TUNING if args.tuning else NAME
    model, judge, results = opened(name, args, CODE, strengths=STRENGTHS)
    chosen: Sequence[Attacker] = EVERY
    known = (
        ("--strengths", args.strengths, STRENGTHS),
        ("--others", args.others, (*OTHERS, "none")),
        ("--attackers", args.attackers, ("all", *(one.name for one in EVERY))),
    )
    for flag, text, names in known:
        if wrong := [word for word in text.split(",") if word not in names]:
            raise UsageError(f"{flag} {wrong[0]} is none; there are {', '.join(names)}")
    if args.attackers != "all":
        chosen = [one for one in EVERY if one.name in args.attackers.split(",")]
    bench = Bench(
        model, judge, results, args.seed, quick=args.quick, strengths=args.strengths.split(","),
        others=[kind for kind in args.others.split(",") if kind != "none"],
    )  # fmt: skip
    seed = args.seed + personalization.TUNING_SEED if args.tuning else args.seed
    cast = unseen(1 if args.quick else args.subjects, seed)
    for who in cast[args.skip :]:
        for row in rows:
            bench.measure(row, who, chosen)
        results.finish(sum_up(results, args.seed), device=model.device)
    results.record["sheets"] = bench.sheets()
    results.finish(sum_up(results, args.seed), device=model.device)
    print(render(results.record))


@dataclass
class Bench:
    """The model, its judges and the results file. resumes: see `Maker`."""

    model: TextToImage
    judge: Judge
    results: common.Results
    seed: int
    quick: bool = False
    resumes: bool = False
    strengths: Sequence[str] = ("gentle",)
    others: Sequence[str] = ("same class", "another class")

    def __post_init__(self) -> None:
        self.maker = Maker(self.model, self.results, self.quick, self.resumes)
        self.reader = load_classifier()

    def measure(self, row: str, who: Member, chosen: Sequence[Attacker]) -> None:
        """Fill this row's missing cells of one subject."""
        chosen = [one for one in chosen if possible(one, row)]
        key = f"{row}/{personalization.key_of(who)}"
        wanted = [f"{key}/{strength}/{one.name}" for strength in self.strengths for one in chosen]
        wanted += [f"{key}/{strength}/{other}" for strength in self.strengths for other in self.others]
        wanted.append(f"{key}/quality")
        if all(name in self.results.cells for name in wanted):
            return
        released = self.maker.released(row, who)
        drawn = Priors(released)
        self.results.cell(f"{key}/quality", lambda: self.quality(released, who, row))
        for strength in self.strengths:
            base = self.base(strength, row)
            for one in chosen:
                self.results.cell(
                    f"{key}/{strength}/{one.name}",
                    lambda one=one, base=base: self.attacked(released, who, one, base, drawn, key, row),  # type: ignore[misc]
                )
            for kind in self.others:
                self.results.cell(
                    f"{key}/{strength}/{kind}",
                    lambda base=base, kind=kind: self.attacked(  # type: ignore[misc]
                        released, others_of(who)[OTHERS[kind][0]], OTHERS[kind][1], base, drawn,
                        f"{key}-{kind}", row, who,
                    ),
                )

    def base(self, strength: str, row: str = "none") -> VerifySettings:
        """The attackers' common settings, with the pools of the row's simulated attackers."""
        values: dict[str, Any] = preset_values("verify", "toybox", 64) | STRENGTHS[strength] | pools(row)
        if self.quick:
            values |= {"steps": 2, "class_images": 4, "class_steps": 2, "batch_size": 1, "unrelated_steps": 2}
        return build(VerifySettings, values)

    def attacked(
        self, released: TextToImage, who: Member, one: Attacker, base: VerifySettings, drawn: Priors,
        key: str, row: str = "none", protected: Member | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """What this attacker gets out of the model; of a row with a protective output, the share of
        images with it, at the training prompt and in new contexts: that of `protected`, if given."""
        subject = who.subject(TRAINING)
        attacked = run_attacker(
            released, subject, one, base, priors=drawn,
            unseen=who.held_out(10 + TRAINING)[10:],  # the first ten are the references
            scratch=self.results.work / "scratch"
            / f"{key.replace('/', '-')}-{base.learning_rate:g}-{fingerprint(released)}",
        )  # fmt: skip
        figures, pictures = self.judge.look(attacked.model, who, attacked.subject, self.seed)
        shown = protective_of(row, who, pictures, self.judge.reader, protected)
        figures |= shares(shown, self.judge.counts.generated)
        strip = self.strip(key, one.name, base.learning_rate)
        strip.parent.mkdir(parents=True, exist_ok=True)
        own = F.interpolate(subject.images, pictures.shape[-2:])
        grid(torch.cat([own, pictures[:TRAINING]]), columns=TRAINING).save(strip)
        return figures | common.on_gpu(released.device)

    def quality(self, released: TextToImage, who: Member, row: str = "none") -> dict[str, Any]:
        """Class pictures against renders of the class, beside the original's; captions read as asked. Of a
        row with a protective output, the share of class images with it, before any attack."""
        noun = who.class_noun
        before = self.before(noun)
        now = before if released is self.model else self.drawn(released, noun)
        pictures, steps = [now, before], 2 if self.quick else 25
        seen, seen_before = (self.reader.features(x) for x in pictures)
        renders = self.renders(noun)
        asked = captions()[1::2]
        read, _ = self.reader.read(
            released.generate(asked, seeds=range(5_000_000, 5_000_000 + len(asked)), steps=steps)
        )
        identity = [self.judge.embedder(x) for x in pictures]
        varied = diversity(identity[0], identity[1], seed=self.seed)
        self._strip(pictures, row, who)
        shown = protective_of(row, who, now, self.judge.reader)
        return {
            "fid": frechet_distance(seen, renders),
            "fid_original": frechet_distance(seen_before, renders),
            "recall": precision_recall(renders, seen)[1],
            "recall_original": precision_recall(renders, seen_before)[1],
            "diversity": varied.value, "class_pictures": len(now),
            "captions_read": sum(f" {n}" in p for n, p in zip(read, asked, strict=True)) / len(asked),
            **({} if shown is None else {"protective": float(shown.float().mean())}),
        }  # fmt: skip

    def drawn(self, model: TextToImage, noun: str) -> Tensor:
        """[B, 3, H, W]: a model's images at the class prompt, always from the same seeds."""
        count, steps = (8, 2) if self.quick else (CLASS_PICTURES, 25)
        prompt = f"a photo of {with_article(noun)}"
        return model.generate([prompt], seeds=range(4_000_000, 4_000_000 + count), steps=steps)

    def before(self, noun: str) -> Tensor:
        """The original's class images, drawn once and kept in a file."""
        file = self.maker.priors.folder / f"class-{noun}{'-quick' if self.quick else ''}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.{os.getpid()}")
            save_file({"images": self.drawn(self.model, noun).contiguous()}, part)
            part.replace(file)
        return load_file(file)["images"]

    def renders(self, noun: str) -> Tensor:
        """The classifier's features of as many pictures of the class from the toybox's world."""
        return self.reader.features(class_pictures(noun, len(self.before(noun)), seed=77))

    def strip(self, key: str, attacker: str, rate: float) -> Path:
        """The file of one attack's images: the subject's own above, the attacker's below."""
        return self.results.work / "pictures" / f"{key.replace('/', '-')}-{attacker}-{rate:g}.png"

    def sheets(self) -> list[str]:
        """For each row a picture beside the results file: a line for each subject with its pictures, those of
        the attacked original, and those of the attacked row. Names of the rows that have one.

        A sheet that is there stays where a subject's pictures were drawn on another machine.
        """
        rate = STRENGTHS["gentle"]["learning_rate"]
        names = sorted({key.split("/")[1] for key in self.results.cells}, key=protection.number)
        made = []
        for row in ROWS:
            both = [[f"{which}/{name}" for which in ("none", row)] for name in names]
            attacked = [
                pair for pair in both if all(f"{key}/gentle/paper" in self.results.cells for key in pair)
            ]
            pairs = [[self.strip(key, "paper", rate) for key in pair] for pair in attacked]
            found = [pair for pair in pairs if all(strip.exists() for strip in pair)]
            file = self.results.path.with_name(f"{self.results.record['benchmark']}-{row}.png")
            if found and not (file.exists() and len(found) < len(pairs)):
                sheet(found).save(file)
            if file.exists():
                made.append(row)
        return made

    def _strip(self, pictures: Sequence[Tensor], row: str, who: Member) -> None:
        strip = self.results.work / "pictures" / f"class-{row}-{personalization.key_of(who)}.png"
        strip.parent.mkdir(parents=True, exist_ok=True)
        grid(torch.cat([x[:8] for x in pictures]), columns=8).save(strip)


def pools(row: str) -> dict[str, Any]:
    """The row's pools of identifiers and prompts, as settings of verify; empty for most rows."""
    settings = settings_of(row)[1]
    names = {"pool_identifiers": "attack_identifiers", "pool_templates": "attack_prompts"}
    return {pool: settings[name] for pool, name in names.items() if name in settings}


def possible(one: Attacker, row: str) -> bool:
    """Whether this attacker applies to the row: the gray box needs pools."""
    return one is not GRAY_BOX or bool(pools(row))


if __name__ == "__main__":
    common.main(cli)
