"""What a protection was computed with, which is the most that it can be expected to do something against.

The command line's last line, the manifest and the page all say it in the same words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from unlikeness.errors import UnlikenessError, one_line
from unlikeness.provenance import own_name

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.protect.base import Perturber

__all__ = ["Against", "against_of", "is_toy"]

_TOY = (
    "computed against the toybox's model: this does nothing against Stable Diffusion or any model that "
    "people use; see --model, train-protector"
)
_CONTROL = "plain noise, which is only a control: it is computed against nothing and protects against nothing"
_LIMITS = (
    "not known to do anything against other models, or once a picture was compressed, resized or cleaned"
)


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a protection was computed with.

    kind: "model", whose gradient was followed; "network", which was trained against models; "control", which
        aims at nothing; "unknown", where the method does not say.
    models, fingerprints: names of the models, and digests of their weights; empty where nothing says.
    network, network_fingerprint: name of the trained network, and a digest of its weights; else None.
    toy: whether all these models are of the toybox's kind.
    """

    kind: Literal["model", "network", "control", "unknown"]
    models: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    network: str | None = None
    network_fingerprint: str | None = None
    toy: bool = False

    @classmethod
    def control(cls) -> Against:
        """Of plain noise."""
        return cls(kind="control")

    @classmethod
    def model(cls, model: TextToImage) -> Against:
        """Of a gradient through `model`."""
        from unlikeness.diffusion.fingerprint import fingerprint

        name = model.name or "an unnamed model"
        return cls(kind="model", models=(name,), fingerprints=(fingerprint(model),), toy=is_toy(model))

    @classmethod
    def trained(cls, network: str, fingerprint: str, about: Mapping[str, Any]) -> Against:
        """Of a network. about: what its file says: `models`, `fingerprints` and `toybox`, as
        `train-protector` writes them; what is not there, or of another form, is not known."""
        models, known = _texts(about.get("models")), about.get("toybox")
        toys = known if isinstance(known, list) and known else [name == "toybox" for name in models]
        return cls(
            kind="network",
            models=models,
            fingerprints=_texts(about.get("fingerprints")),
            network=own_name(network),
            network_fingerprint=fingerprint,
            toy=bool(toys) and all(toy is True for toy in toys),
        )

    @property
    def sentence(self) -> str:
        """One line: against what, what it is not known to do, and with what it was computed."""
        return one_line(f"{self.claim} [{self.source}]" if self.source else self.claim)

    @property
    def claim(self) -> str:
        """Against what, and what it is not known to do."""
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
        return f"{how} against {' and '.join(self.models)}: {_LIMITS}; measure it"

    @property
    def source(self) -> str:
        """Names and fingerprints of what it was computed with; empty where there are none."""
        marks = [*self.fingerprints, *[""] * len(self.models)]
        parts = [
            f"model {name}" + (f", fingerprint {mark}" if mark else "")
            for name, mark in zip(self.models, marks, strict=False)
        ]
        if self.network is not None:
            parts = [f"network {self.network}, fingerprint {self.network_fingerprint}", *parts]
        return "; ".join(parts)

    def record(self) -> dict[str, Any]:
        """For the manifest: the fields that are known, and the claim in words."""
        known = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v}
        return {**known, "claim": one_line(self.claim)}


def against_of(perturber: Perturber) -> Against:
    """What a protection says of itself, as `against`; of another package's it may be unknown."""
    found = getattr(perturber, "against", None)
    return found if isinstance(found, Against) else Against(kind="unknown")


def is_toy(model: TextToImage) -> bool:
    """Whether the model reads the toybox's vocabulary, as the embedded one does and all that was trained from
    it, under whatever name."""
    from unlikeness.toybox.weights import model_path

    try:
        text = (model_path() / "tokenizer" / "vocab.json").read_text(encoding="utf-8")
    except (OSError, UnlikenessError):
        return model.name == "toybox"
    vocabulary: dict[str, int] = json.loads(text)
    return bool(model.conditioner.tokenizer.get_vocab() == vocabulary)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return ()
    return tuple(values) if all(isinstance(value, str) for value in values) else ()
