"""What a perturbation was computed against, in the same words everywhere.

The command line's last line, the manifest and the page all use them. A perturbation can be expected to do
something against these models at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlikeness.autoencoders.names import stands_for
from unlikeness.errors import UnlikenessError, one_line
from unlikeness.networks.configs import read_object
from unlikeness.provenance import own_name
from unlikeness.toybox.weights import model_path

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.protect.base import Perturber

__all__ = ["Against", "against_of", "is_toy", "is_toy_folder"]

_TOY = (
    "computed against the toybox's model: this does nothing against Stable Diffusion or any model that "
    "people use; see --model, train-protector"
)
_CONTROL = "plain noise, which is only a control: it is computed against nothing and protects against nothing"
_LIMITS = (
    "not known to do anything against other models, or once a picture was compressed, resized or cleaned"
)
_LIMITS_OF_ENCODERS = (
    "not known to stop a fine-tune, or to do anything to other autoencoders; compression, resizing and "
    "cleaning weaken it"
)


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a perturbation was computed against.

    kind: "model": a gradient through models; "network": a network that was trained against models;
        "control": nothing; "unknown": the method does not say.
    models, fingerprints: names of the models, and digests of their weights; empty if unknown.
    network, network_fingerprint: name of the trained network, and a digest of its weights; otherwise None.
    toy: whether all these models are the toybox's.
    """

    kind: Literal["model", "network", "control", "unknown"]
    models: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    network: str | None = None
    network_fingerprint: str | None = None
    toy: bool = False

    @classmethod
    def control(cls) -> Against:
        """For plain noise."""
        return cls(kind="control")

    @classmethod
    def trained(cls, network: str, fingerprint: str, about: Mapping[str, Any]) -> Against:
        """For a network. about: `models`, `fingerprints` and `toybox` of its file, as `train-protector`
        writes them; entries that are missing or have another form count as unknown."""
        models, known = _texts(about.get("models")), about.get("toybox")
        toys = known if isinstance(known, list) and known else [name == "toybox" for name in models]
        return cls(
            kind="network", models=models, fingerprints=_texts(about.get("fingerprints")),
            network=own_name(network), network_fingerprint=fingerprint,
            toy=bool(toys) and all(toy is True for toy in toys),
        )  # fmt: skip

    @property
    def sentence(self) -> str:
        """One line: the claim and the source."""
        return one_line(f"{self.claim} [{self.source}]" if self.source else self.claim)

    @property
    def claim(self) -> str:
        """Against which models, and what is not known."""
        if self.kind == "control":
            return _CONTROL
        if self.kind == "unknown":
            return f"the method does not say what it is computed against: {_LIMITS}"
        if self.toy:
            return _TOY
        if not self.models:
            return (
                "computed by a network whose file does not say which models it was trained against: not "
                "known to do anything against any model; measure it"
            )
        how = "computed" if self.kind == "model" else "computed by a network that was trained"
        limits = _LIMITS_OF_ENCODERS if _autoencoders(self.models) else _LIMITS
        return f"{how} against {self.opponents}: {limits}; measure it"

    @property
    def opponents(self) -> str:
        """The models in words; known autoencoders by the models that they belong to."""
        return _autoencoders(self.models) or " and ".join(self.models)

    @property
    def source(self) -> str:
        """Names and fingerprints of models and network; may be empty."""
        marks = [*self.fingerprints, *[""] * len(self.models)]
        parts = [
            f"model {name}" + (f", fingerprint {mark}" if mark else "")
            for name, mark in zip(self.models, marks, strict=False)
        ]
        if self.network is not None:
            parts = [f"network {self.network}, fingerprint {self.network_fingerprint}", *parts]
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """For the manifest: the known fields, and the claim in words."""
        known = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v}
        return {**known, "claim": one_line(self.claim)}


def against_of(perturber: Perturber) -> Against:
    """A method's `against`; unknown for a method of another package that has none."""
    found = getattr(perturber, "against", None)
    return found if isinstance(found, Against) else Against(kind="unknown")


def is_toy(model: TextToImage) -> bool:
    """Whether the model has the toybox's vocabulary, with or without added words: the embedded model and all
    that was trained from it, under any name."""
    try:
        known = _vocabulary(model_path())
    except UnlikenessError:
        return model.name == "toybox"
    return known.items() <= model.conditioner.vocabulary.items()


def is_toy_folder(folder: Path) -> bool:
    """`is_toy` of a model's folder."""
    try:
        return _vocabulary(model_path()).items() <= _vocabulary(folder).items()
    except UnlikenessError:  # a tokenizer of another kind
        return False


def _vocabulary(folder: Path) -> dict[str, Any]:
    return read_object(folder / "tokenizer" / "vocab.json", folder)


def _autoencoders(names: Sequence[str]) -> str:
    """"the distilled autoencoders of FLUX.2 and Sana", or "" unless all are known autoencoders."""
    known = [found for name in names if (found := stands_for(name)) is not None]
    if not known or len(known) < len(names):
        return ""
    parts = []
    for tiny in (False, True):
        if models := [model for model, distilled in known if distilled == tiny]:
            listed = " and ".join([", ".join(models[:-1]), models[-1]] if models[1:] else models)
            plural = "s" if models[1:] else ""
            parts.append(f"the {'distilled ' if tiny else ''}autoencoder{plural} of {listed}")
    return " and ".join(parts)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return ()
    return tuple(values) if all(isinstance(value, str) for value in values) else ()
