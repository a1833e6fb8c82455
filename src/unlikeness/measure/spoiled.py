"""Is the output spoiled? What a personalized model draws, judged without asking whether it is the subject.

Picture protections are first judged so in their papers, because fine-tuning on protected pictures may learn
that the identifier means noise. Each figure says nothing alone: give what a model draws that was trained on
unprotected pictures, the clean copies, and every figure is measured on them too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion.devices import pick_device
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.measure.classifiers import Clip, open_clip
from unlikeness.measure.classifiers import prompt as photo_of
from unlikeness.measure.distribution import frechet_interval, kernel_interval
from unlikeness.measure.encoders import ENCODERS, PHOTOGRAPHS, Encoder, check_encoder, folder_of, load_encoder
from unlikeness.measure.faces import onnx_file
from unlikeness.measure.folders import read_vectors
from unlikeness.measure.intervals import Interval, Share, bootstrap_mean, share
from unlikeness.measure.naturalness import LEAST_SIDE, Naturalness, patch_statistics
from unlikeness.measure.similarity import unit
from unlikeness.measure.towers import kind_of
from unlikeness.measure.views import read_view
from unlikeness.provenance import own_name
from unlikeness.settings import named
from unlikeness.subjects import read_folder
from unlikeness.words import with_article

__all__ = ["Figure", "SpoiledReport", "spoiled_output", "to_json"]

_GOOD, _BAD = "Good photo.", "Bad photo."
_SURE = 0.9
"""The toybox's classifier is that sure of every clean picture. It has no word for "nothing"."""
_MOST = 1000
"""Distances between sets look at so many pictures of each at most, spread evenly."""


@dataclass(frozen=True)
class Figure:
    """One measure of the generated pictures, with its 95 % interval over pictures.

    Attributes:
        name: FDFR, ISM, CLIP-IQA, CLIP-T, unreadable, NIQE, FID or KID.
        by: the encoder; empty for NIQE.
        n: pictures that it was computed from.
        clean: the same of the clean copies; None without them, and for distances to them.
        sentence: what the value says.
    """

    name: str
    by: str
    value: float
    low: float
    high: float
    n: int
    clean: float | None
    sentence: str


@dataclass(frozen=True)
class SpoiledReport:
    """figures, and left_out: by a measure's name, why it was not computed."""

    pictures: int
    figures: tuple[Figure, ...]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Judge:
    """An encoder, and what turns its vectors into words: a CLIP's prompts, or the toybox's p(class noun)."""

    encoder: Encoder
    clip: Clip | None = None
    noun: Callable[[Tensor], Tensor] | None = None


def spoiled_output(
    generated: Path, *, names: Sequence[str] = ("toybox",), clean: Path | None = None,
    subject: Path | None = None, class_noun: str = "", prompt: str = "", seed: int = 0,
    device: str = "auto", report: Callable[[str], None] | None = None,
) -> SpoiledReport:  # fmt: skip
    """Everything that can be measured of `generated` with these encoders (`encoders.load_encoder`).

    Args:
        clean: pictures drawn by a model that was trained on unprotected pictures. subject: the subject's own.
        class_noun: what the pictures should show. prompt: the prompt that they were drawn with.
        report: gets a line on each file that cannot be read.

    Raises:
        UsageError: a wrong name; pictures that an encoder does not know; an unknown class noun; generated
            pictures that are among the clean ones.
        UnlikenessError: an encoder or a folder cannot be read.
    """
    left: dict[str, str] = {}
    judges = [_open(name, device, class_noun, left) for name in dict.fromkeys(names)]
    for judge in judges:
        if judge.clip is not None:  # words that are too long are refused before pictures are read
            judge.clip.prompts([prompt, photo_of(class_noun)])
    encoders = [judge.encoder for judge in judges]
    drawn, digests = read_vectors(encoders, generated, report=report)
    beside, others = read_vectors(encoders, clean, report=report) if clean else (None, [])
    if same := sum(one in others for one in digests):
        raise UsageError(
            f"{same} of the pictures in {generated} are in {clean} too, bit for bit, and would be compared "
            "with themselves; give other clean copies"
        )
    figures: list[Figure] = []
    for i, judge in enumerate(judges):
        x, y = drawn[i].double(), None if beside is None else beside[i].double()
        if judge.encoder.faces:
            figures += _of_faces(judge.encoder, x, y, subject, seed, left, report)
        if judge.clip is not None:
            figures += _of_clip(judge.encoder.name, judge.clip, x, y, class_noun, prompt, seed)
        if judge.noun is not None and class_noun:
            p, q = judge.noun(x), None if y is None else judge.noun(y)
            figures.append(_unreadable(judge.encoder.name, class_noun, p, q, least=_SURE))
        if y is not None:
            figures += _distances(judge.encoder, x, y, seed, left)
    if clean is not None:
        figures += _niqe(generated, clean, seed, left)
    _explain(left, judges, clean, subject, class_noun, prompt)
    return SpoiledReport(len(digests), tuple(figures), left)


def to_json(report: SpoiledReport) -> str:
    return json.dumps(asdict(report), indent=2, ensure_ascii=False)


def _open(name: str, device: str, class_noun: str, left: dict[str, str]) -> _Judge:
    check_encoder(name)
    where = pick_device(device)
    if name == "toybox":
        from unlikeness.toybox.evaluators import load_classifier
        from unlikeness.toybox.world import CLASS_NOUNS

        if class_noun and class_noun not in CLASS_NOUNS:
            raise UsageError(
                f"the toybox has no {class_noun}, only {', '.join(CLASS_NOUNS)}; give one of them with "
                f"{named('class_noun')}, or an encoder of photographs with {named('encoder')}"
            )
        reads = load_classifier()
        encoder = replace(load_encoder(name), vectors=reads.features, width=192)
        return _Judge(encoder, noun=lambda x: reads.probability(x.float(), class_noun))
    path = Path(name).expanduser()
    if name in ("dlib", "dino", "dinov2") or (name not in ENCODERS and onnx_file(path) is not None):
        return _Judge(load_encoder(name, device=where))
    folder = folder_of(name)
    if kind_of(folder) != "clip":
        return _Judge(load_encoder(name, device=where))
    try:
        clip = open_clip(PHOTOGRAPHS.get(name, name), device=where)
    except UnlikenessError as error:  # half a CLIP still sees pictures
        for one in ("CLIP-IQA", "CLIP-T"):
            left[one] = str(error)
        return _Judge(load_encoder(name, device=where))
    view = read_view(folder, square=False)
    if view.sides != (clip.side, clip.side):
        raise UnlikenessError(
            f"{folder} prepares pictures of other sides than the {clip.side} px that its network sees; "
            "fetch or save the model again"
        )
    return _Judge(Encoder(own_name(name), view, clip.pictures, clip.width), clip=clip)


def _mean(
    name: str, by: str, values: Tensor, clean: Tensor | None, seed: int, sentence: str
) -> Figure:  # fmt: skip
    """The mean of [N] with its bootstrap interval. sentence: has a place {} for the value."""
    found = bootstrap_mean([values.tolist()], seed=seed)
    beside = float(clean.mean()) if clean is not None and len(clean) else None
    return _figure(name, by, found, beside, sentence.replace("{}", f"{found.value:.2f}", 1))


def _share(name: str, by: str, seen: Tensor, clean: Tensor | None, sentence: str) -> Figure:
    found = share(seen)
    beside = None if clean is None else float(clean.double().mean())
    return _figure(name, by, found, beside, sentence.replace("{}", f"{found.value:.0%}", 1))


def _figure(name: str, by: str, found: Interval | Share, clean: float | None, sentence: str) -> Figure:
    return Figure(name, by, found.value, found.low, found.high, found.n, clean, sentence)


def _of_faces(
    encoder: Encoder, x: Tensor, y: Tensor | None, subject: Path | None, seed: int, left: dict[str, str],
    report: Callable[[str], None] | None,
) -> list[Figure]:  # fmt: skip
    """FDFR, and ISM: the cosine of each found face to the mean of the subject's faces (Anti-DreamBooth)."""
    x, y = unit(x, faces=True), None if y is None else unit(y, faces=True)
    none, none_clean = x.isnan().all(1), None if y is None else y.isnan().all(1)
    found = [
        _share("FDFR", encoder.name, none, none_clean,
               "{} of the pictures have no face that is found; higher is more spoiled.")
    ]  # fmt: skip
    if subject is None:
        return found
    own = unit(read_vectors([encoder], subject, report=report)[0][0], faces=True)
    own = own[~own.isnan().all(1)]
    if not len(own):
        left["ISM"] = f"no face is found in the pictures of {subject}; give others"
    elif bool(none.all()):
        left["ISM"] = "no face is found in the generated pictures"
    else:
        mean = F.normalize(own.mean(0), dim=0)
        clean = None if y is None or none_clean is None else y[~none_clean] @ mean
        found.append(
            _mean("ISM", encoder.name, x[~none] @ mean, clean, seed,
                  "The faces that are found have a mean cosine of {} to the subject's mean face; "
                  "lower is less like the subject.")
        )  # fmt: skip
    return found


def _of_clip(
    by: str, clip: Clip, x: Tensor, y: Tensor | None, class_noun: str, prompt: str, seed: int
) -> list[Figure]:
    """CLIP-IQA (Wang et al. 2023), CLIP-T, and whether the class noun is read (`classifiers.ZeroShot`)."""
    x, y = unit(x), None if y is None else unit(y)

    def both(prompts: Sequence[str], of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        text = clip.prompts(prompts).double().cpu()
        return of(x @ text.T), None if y is None else of(y @ text.T)

    def first(cosines: Tensor) -> Tensor:
        return (clip.scale * cosines).softmax(1)[:, 0]

    good = both([_GOOD, _BAD], first)
    found = [
        _mean("CLIP-IQA", by, *good, seed,
              f"CLIP prefers “{_GOOD}” to “{_BAD}” "
              "with a mean probability of {}; lower is more spoiled.")
    ]  # fmt: skip
    if prompt:
        fits = both([prompt], lambda cosines: cosines[:, 0])
        found.append(
            _mean("CLIP-T", by, *fits, seed,
                  "The pictures have a mean cosine of {} to the prompt; lower is further from it.")
        )  # fmt: skip
    if class_noun:
        p, q = both([photo_of(class_noun), photo_of("")], first)
        found.append(_unreadable(by, class_noun, p, q, least=0.5))
    return found


def _unreadable(by: str, noun: str, p: Tensor, q: Tensor | None, *, least: float) -> Figure:
    """p, q: of the noun, [N], for generated and clean pictures. least: what a readable picture has."""
    sentence = f"{{}} of the pictures are not read as {with_article(noun)}; higher is more spoiled."
    return _share("unreadable", by, p < least, None if q is None else q < least, sentence)


def _distances(encoder: Encoder, x: Tensor, y: Tensor, seed: int, left: dict[str, str]) -> list[Figure]:
    x, y = (_spread(one[~one.isnan().all(1)] if encoder.faces else one) for one in (x, y))
    if min(len(x), len(y)) < 2:
        what = "pictures with a face" if encoder.faces else "pictures"
        left["FID and KID"] = f"they need two {what} or more in each folder, not {len(x)} and {len(y)}"
        return []
    fid, kid = frechet_interval(x, y, seed=seed), kernel_interval(x, y, seed=seed)
    return [
        _figure("FID", encoder.name, fid, None,
                f"The Fréchet distance to the clean copies is {fid.value:.3g}, by {encoder.width} features; "
                "higher is further. Compare only folders of the same sizes."),
        _figure("KID", encoder.name, kid, None,
                f"The kernel distance to the clean copies is {kid.value:.3g}; 0 is no difference."),
    ]  # fmt: skip


def _spread(x: Tensor) -> Tensor:
    return x if len(x) <= _MOST else x[torch.linspace(0, len(x) - 1, _MOST).long()]


def _niqe(generated: Path, clean: Path, seed: int, left: dict[str, str]) -> list[Figure]:
    def seen(folder: Path) -> list[Tensor]:
        """Statistics of each picture. Unreadable files were reported before."""
        found = (patch_statistics(torch.from_numpy(rgb).permute(2, 0, 1))
                 for rgb in read_folder(folder, report=lambda line: None))  # fmt: skip
        return [torch.from_numpy(one) for one in found if one is not None]

    try:
        model = Naturalness([one.numpy() for one in seen(clean)])
    except UsageError as error:
        left["NIQE"] = str(error)
        return []
    scores = [model.score(one.numpy()) for one in seen(generated)]
    if not scores:
        left["NIQE"] = f"every generated picture has a side below {LEAST_SIDE} px"
        return []
    return [
        _mean("NIQE", "", torch.tensor(scores), torch.ones(1), seed,
              "Local statistics are {} times as far from clean ones as another clean picture's; "
              "higher is more spoiled.")
    ]  # fmt: skip


def _explain(
    left: dict[str, str], judges: Sequence[_Judge], clean: Path | None, subject: Path | None, class_noun: str,
    prompt: str,
) -> None:  # fmt: skip
    """Name what was not asked for, and how to ask for it."""
    faces, clip = any(one.encoder.faces for one in judges), any(one.clip for one in judges)
    encoder = named("encoder")
    if not faces:
        left["FDFR and ISM"] = f"they need an encoder of faces; give {encoder} dlib"
    elif subject is None:
        left["ISM"] = f"it needs the subject's pictures; give {named('subject')}"
    if not clip and "CLIP-IQA" not in left:
        left["CLIP-IQA and CLIP-T"] = f"they need a CLIP; give {encoder} clip, a folder or a hub name"
    elif clip and not prompt:
        left["CLIP-T"] = f"it needs the prompt of the pictures; give {named('prompt')}"
    if not class_noun:
        left["unreadable"] = f"it needs what the pictures should show; give {named('class_noun')}"
    elif not (clip or any(one.noun for one in judges)):
        left["unreadable"] = f"it needs an encoder that reads classes; give {encoder} clip"
    if clean is None:
        left["FID, KID and NIQE"] = f"they need clean copies; give {named('clean')}"
