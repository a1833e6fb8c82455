"""The tables of docs/results.md: one a claim, each from the results files of several measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import common

__all__ = ["CLAIMS", "Load"]

Load = Callable[[str], Mapping[str, Any]]
"""The summary in a results file, by its name."""

_ATTACKERS = {
    "paper": "the paper's DreamBooth",
    "unseen-prompt": "another prompt",
    "unseen-pictures": "pictures that the defence did not see",
    "augmented": "flipped, cropped and compressed pictures",
    "pre-tuned": "a model fine-tuned on something else before",
    "slow": "slow training",
    "other-identifier": "another identifier",
    "text-encoder": "DreamBooth, text encoder too",
    "lora-32": "LoRA of rank 32",
    "lora-4": "LoRA of rank 4",
    "patient": "four times the steps",
    "converged": "until the loss stops falling",
}
_ON_PICTURES = {
    "dreambooth": "DreamBooth",
    "lora": "LoRA",
    "gentle": "DreamBooth, a tenth of the learning rate",
    "jpeg-75": "JPEG 75, then DreamBooth",
    "half-size": "half size, then DreamBooth",
    "another-model": "DreamBooth on a model of other seeds",
}
_FLOORS = {"paper": "random/5e-05", "patient": "random/5e-05 x 4", "lora-32": "random/lora 0.003"}


def _pictures(load: Load) -> str:
    """s by attacker and protection at 8/255."""
    methods = ("clean", "noise", "advdm", "photoguard", "aspl", "rid")
    found: dict[str, dict[str, Any]] = {"dreambooth": {}}
    for key, figures in load("protection").items():
        method, _, budget = key.partition("/")
        if budget in ("", "8"):
            found["dreambooth"][method.partition("@")[0]] = figures
    for key, figures in load("other_attackers").items():
        attacker, method, *_ = key.split("/")
        found.setdefault(attacker.partition("@")[0], {})[method.partition("@")[0]] = figures
    rows = [
        [label, *(_s(found[name].get(method)) for method in methods)]
        for name, label in _ON_PICTURES.items()
        if name in found
    ]
    levels = [found["dreambooth"][method].get("psnr") for method in methods[1:]]
    rows.append(["PSNR of the published picture [dB]", None, *(f"{level:.1f}" for level in levels)])
    head = ["s after", "clean", "noise", "AdvDM", "PhotoGuard", "ASPL", "RID"]
    return common.table(head, rows)


def _immunized(load: Load) -> str:
    """s by attacker, out of the original, out of the immunized model and out of random weights."""
    summary, floor = load("immunization"), load("attack_floor")
    original, divert = summary["none"], summary["divert"]
    worst = _worst_of(divert["s"])
    rows = []
    for name, label in _ATTACKERS.items():
        ours = divert["s"].get(f"gentle/{name}")
        if ours is not None:
            random = floor.get(_FLOORS.get(name, ""))
            theirs = original["s"][f"gentle/{name}"]
            shown = f"**{label}**" if name == worst else label
            rows.append([shown, _only(theirs), _only(ours), _only(random), _subjects(theirs, ours)])
    for kind in ("same class", "another class"):
        two = [one["s"][f"gentle/{kind}"] for one in (original, divert)]
        rows.append([f"*unprotected subject, {kind}*", *map(_only, two), None, _subjects(*two)])
    quality = divert["quality"]
    drift = f"{quality['drift']:+.0%}"
    rows.append(["*class images, change of the FID*", None, drift, None, quality["subjects"]])
    head = ["attacker", "s, original", "s, `divert`", "s, random weights", "subjects"]
    return common.table(head, rows)


def _outputs(load: Load) -> str:
    """Protective outputs: what fine-tunes show, and what it costs everybody else."""
    summary, patience = load("immunization"), load("retention")
    rows = []
    for label, row, attacker in (
        ("another class", "target-often", "paper"),
        ("watermark", "pattern-often-marked", "paper"),
        ("watermark, gray box", "pattern-pools-marked", "gray-box"),
        ("erasure", "erasure-often-away", "paper"),
    ):
        s = summary[row]["s"]
        found, same = s[f"gentle/{attacker}"], s["gentle/same class"]
        quality = summary[row]["quality"]
        patient = s.get("gentle/patient") or patience.get(row, {}).get("5e-05/1600")
        rows.append([
            label, _shown(found), _only(found), found["subjects"], _worst(s), _counted(patient),
            _counted(same), _shown(same), f"{quality['protective']['value']:.1%}", f"{quality['drift']:+.0%}",
        ])  # fmt: skip
    head = [
        "protective output", "shown", "s", "subjects", "worst attacker", "s after 4 × the steps",
        "s, same class, unprotected", "and shown", "class images with it", "FID",
    ]  # fmt: skip
    return common.table(head, rows)


def _together(load: Load) -> str:
    """Several subjects in one model."""
    summary = load("many_subjects")
    rows = []
    for label, key in (
        ("`divert`", "divert-unet, joint, 50/4"),
        ("`divert`", "divert-unet, sampled, 200/16"),
        ("`divert`", "divert-unet, sampled, 200/64"),
        ("another class", "target-shared, joint, 50/8"),
        ("watermark", "pattern-often-marked, joint, 100/8"),
        ("erasure", "erasure-often-away, joint, 100/8"),
    ):
        found = summary[key]
        protected, same = found["protected"], found["same class"]
        rows.append([
            label, key.rpartition("/")[2], protected["subjects"], _only(protected), _shown(protected),
            *(_only(found[kind]) for kind in ("same class", "another class")), _shown(same),
            f"{found['quality']['drift']:+.0%}",
        ])  # fmt: skip
    head = [
        "method", "protected", "attacked", "s", "shown", "s, same class, unprotected",
        "s, another class, unprotected", "shown, same class", "FID",
    ]  # fmt: skip
    return common.table(head, rows)


def _published(load: Load) -> str:
    """Published methods, and what the search of their settings has found so far."""
    summary = load("immunization")
    rows = []
    for label, row in (
        ("APDM, its published length", "apdm-full"),
        ("IMMA", "imma"),
        ("maximised training loss", "adversarial"),
        ("PersGuard, another class", "target"),
        ("PersGuard, watermark", "pattern"),
        ("PersGuard, erasure", "erasure"),
    ):
        s, quality = summary[row]["s"], summary[row]["quality"]
        paper = s["gentle/paper"]
        rows.append([
            label, _only(paper), _worst(s), _counted(s.get("gentle/same class")), f"{quality['drift']:+.0%}",
            paper["subjects"],
        ])  # fmt: skip
    rows += _best_so_far(load("apdm_search"))
    head = ["method", "s", "worst attacker", "s, same class, unprotected", "FID", "subjects"]
    return common.table(head, rows)


def _best_so_far(summary: Mapping[str, Any]) -> list[list[Any]]:
    """Of each search the best row of its longest round."""
    rows = []
    for search, lines in summary.items():
        found: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            if search != "original" and line["score"] is not None:
                found.setdefault(line["row"], []).append(line)
        if not found:
            continue
        longest = max(_steps(row) for row in found)
        every = {row: lines for row, lines in found.items() if _steps(row) == longest}
        row, best = min(every.items(), key=lambda one: sum(line["score"] for line in one[1]) / len(one[1]))
        means = {
            name: sum(line["s"][name] for line in best) / len(best)
            for name in _ATTACKERS | {"lora-16": "LoRA of rank 16"}
            if all(name in line["s"] for line in best)
        }
        worst = max(means, key=lambda name: means[name])
        rows.append([
            f"search `{search}`: `{row}`", f"{means['paper']:.2f}", f"{means[worst]:.2f} ({worst})", None,
            f"{sum(line['drift'] for line in best) / len(best):+.0%}", f"{len(best)}, of tuning",
        ])  # fmt: skip
    return rows


def _steps(row: str) -> int:
    return int(row.partition("@")[2] or 0)


def _attacks(load: Load) -> str:
    """What an attack gets out of the model, and out of random weights."""
    rows = []
    for method, figures in load("personalization")["test"].items():
        chosen = figures["settings"]
        rate, steps = f"{chosen['learning_rate']:g}", chosen["steps"]
        rows.append([_ON_PICTURES[method], rate, steps, _only(figures), None, figures["subjects"]])
    summary = load("attack_floor")
    for at in dict.fromkeys(key.partition("/")[2] for key in summary):
        both = [summary.get(f"{name}/{at}") for name in ("trained", "random")]
        what, _, times = at.partition(" x ")
        *method, rate = what.split()
        label = "LoRA" if method else "DreamBooth"
        subjects = max(one["subjects"] for one in both if one is not None)
        rows.append([label, rate, 400 * int(times or 1), *map(_only, both), subjects])
    head = ["attack", "learning rate", "steps", "s on the model", "s on random weights", "subjects"]
    return common.table(head, rows)


def _subjects(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The subjects of a row, and of the original if these are not as many."""
    other = "" if theirs["subjects"] == ours["subjects"] else f" (original {theirs['subjects']})"
    return f"{ours['subjects']}{other}"


def _only(figures: Mapping[str, Any] | None) -> str | None:
    """s with its interval."""
    return None if figures is None else common.interval(figures["s"])


def _s(figures: Mapping[str, Any] | None) -> str | None:
    """s with its interval and the number of subjects."""
    return None if figures is None else f"{common.interval(figures['s'])} ({figures['subjects']})"


def _counted(figures: Mapping[str, Any] | None) -> str | None:
    """s with the number of subjects."""
    return None if figures is None else f"{figures['s']['value']:.2f} ({figures['subjects']})"


def _worst(s: Mapping[str, Any]) -> str:
    """The attacker with the highest mean, its s and its subjects."""
    worst = _worst_of(s)
    return f"{_counted(s[f'gentle/{worst}'])}, {worst}"


def _worst_of(s: Mapping[str, Any]) -> str:
    """The attacker with the highest mean."""
    known = {name: s[f"gentle/{name}"] for name in _ATTACKERS if f"gentle/{name}" in s}
    return max(known, key=lambda name: float(known[name]["s"]["value"]))


def _shown(figures: Mapping[str, Any]) -> str | None:
    """ "77% / 82%": the share of images with the protective output, at the training prompt and elsewhere."""
    names = [name for name in ("protective", "protective_new_context") if name in figures]
    shares = [figures[name] for name in names]
    return " / ".join(f"{one['value'] if isinstance(one, dict) else one:.0%}" for one in shares) or None


CLAIMS: dict[str, tuple[Callable[[Load], str], tuple[str, ...]]] = {
    "claim_pictures": (_pictures, ("benchmarks.protection", "benchmarks.other_attackers")),
    "claim_immunized": (_immunized, ("experiments.immunization", "benchmarks.attack_floor")),
    "claim_outputs": (_outputs, ("experiments.immunization", "experiments.retention")),
    "claim_together": (_together, ("experiments.many_subjects",)),
    "claim_published": (_published, ("experiments.immunization", "experiments.apdm_search")),
    "claim_attacks": (_attacks, ("benchmarks.personalization", "benchmarks.attack_floor")),
}
"""By name: what makes the table, and the modules whose results files it reads."""
