"""The frozen models that a perturbation is computed against: one, or an ensemble.

A surrogate is an autoencoder and the resolution at which a trainer shows it pictures. Most have a whole model
around them. Objectives on latents need only the autoencoder; objectives on the diffusion loss need the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from unlikeness import finite
from unlikeness.autoencoders import Autoencoder, Posterior
from unlikeness.autoencoders.names import expand, stands_for, title
from unlikeness.diffusion.devices import pick_device, pick_dtype
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.hub import at_home
from unlikeness.diffusion.loading import check_model, judged
from unlikeness.diffusion.loss import diffusion_loss
from unlikeness.errors import UsageError
from unlikeness.networks.configs import read_object
from unlikeness.protect.against import Against, is_toy, is_toy_folder
from unlikeness.provenance import own_name
from unlikeness.seeds import integers, normal
from unlikeness.toybox.weights import model_path
from unlikeness.viewing import viewed

if TYPE_CHECKING:
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = ["RESOLUTION", "Models", "Surrogate", "Surrogates", "frozen"]

RESOLUTION = 512
"""Of an autoencoder alone [px]: the side at which most trainers show pictures."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """One member of an ensemble.

    resolution: short side to which a trainer resizes pictures [px].
    model: the whole model; None if there is only the autoencoder. toybox: whether the autoencoder alone is
    the toybox's.
    """

    autoencoder: Autoencoder
    resolution: int
    name: str = "an unnamed model"
    model: TextToImage | None = None
    toybox: bool = False

    @classmethod
    def of(cls, model: TextToImage) -> Surrogate:
        """A whole model."""
        return cls(model.autoencoder, model.resolution, model.name or "an unnamed model", model)

    @property
    def whole(self) -> TextToImage:
        """The whole model. UsageError if there is only an autoencoder."""
        if self.model is None:
            raise UsageError(f"{self.name} is only an autoencoder, and this method needs a whole model")
        return self.model

    @property
    def device(self) -> torch.device:
        return self.autoencoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.autoencoder.dtype if self.model is None else self.model.dtype

    @property
    def fingerprint(self) -> str:
        return self.autoencoder.fingerprint if self.model is None else fingerprint(self.model)

    @property
    def toy(self) -> bool:
        """Whether it is the toybox's model, or was trained from it."""
        return self.toybox if self.model is None else is_toy(self.model)

    @property
    def networks(self) -> list[Any]:
        return [self.autoencoder.network] if self.model is None else self.model.networks

    def encode(self, images: Tensor) -> Posterior:
        """Latents of pictures [B, 3, H, W] as a trainer sees them; differentiable."""
        return self.autoencoder.encode(viewed(images, self.resolution).to(self.device))

    def denoising_loss(
        self, images: Tensor, c: Condition, generators: Sequence[torch.Generator], *, draws: int = 1
    ) -> Tensor:
        """AdvDM's objective, [B]: each picture's diffusion loss, mean over elements and `draws`.

        Each draw takes its own t, ε and posterior sample from `generators[i]` for picture i. The gradient
        goes through the denoiser and the autoencoder's encoder.
        """
        model = self.whole
        posterior = self.encode(images)
        total = torch.zeros(len(images), device=posterior.mean.device)
        for _ in range(draws):
            z0, t, eps = self.drawn(posterior, generators)
            total = total + diffusion_loss(model, z0, c, t=t, eps=eps, reduce="none")
        return total / draws

    def drawn(
        self, posterior: Posterior, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(z0, t, ε) of each picture, in this order from its own generator; z0 is a posterior sample. t is
        uniform, whatever level training prefers."""
        z0 = posterior.mean + posterior.std * normal(posterior.mean, generators)
        t = integers(0, self.whole.schedule.steps, generators).to(z0.device)
        return z0, t, normal(z0, generators)

    def check(self) -> None:
        """NotFiniteError, which names the part, if its answer to a plain picture is not finite."""
        if self.model is not None:
            check_model(self.model)
            return
        side = self.resolution
        plain = torch.linspace(0.25, 0.75, side).expand(1, 3, side, side)
        with torch.no_grad():
            finite.check(self.encode(plain).mean, finite.ENCODER, self.dtype)


class Surrogates(tuple[Surrogate, ...]):
    """An ensemble; at least one."""

    @classmethod
    def of(cls, given: Models) -> Surrogates:
        """From models, from surrogates, or from sequences of them."""
        if isinstance(given, Surrogates):
            return given
        several = given if isinstance(given, Sequence) else [given]
        return cls(one if isinstance(one, Surrogate) else Surrogate.of(one) for one in several)

    @classmethod
    def named(
        cls, names: str | Path | Sequence[str | Path], *, resolution: int = RESOLUTION,
        device: str | torch.device | None = None, dtype: str | torch.dtype | None = None,
    ) -> Surrogates:  # fmt: skip
        """Autoencoders alone, opened for encoding.

        Args:
            names: what `Autoencoder.open` opens, and groups: see `autoencoders.names.expand`.
            resolution: short side at which a trainer shows pictures to them [px].
            device, dtype: as in `TextToImage.from_pretrained`.

        Raises:
            UsageError: no name, or one of nothing.
            UnlikenessError: a file is damaged or out of bounds, or could not be fetched.
        """
        on = pick_device(device)
        precision = pick_dtype(dtype, on)
        given = expand(names)
        opened = (Autoencoder.open(name, device=on, dtype=precision, decoder=False) for name in given)
        return cls(
            Surrogate(autoencoder, resolution, own_name(name))
            for name, autoencoder in zip(given, opened, strict=True)
        )

    @classmethod
    def apart(
        cls, model: str | Path, *, device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> Surrogates | None:  # fmt: skip
        """The autoencoder of a whole model, without the rest of it.

        model: a diffusers folder, "toybox", or a hub name, of which only `vae` is fetched. Pictures are shown
        at `RESOLUTION`, or at the model's own size if that is smaller. None if the autoencoder cannot be
        opened apart: of a single file, a revision, or pickled weights. Raises as `named`.
        """
        place = model_path() if str(model) == "toybox" else at_home(str(model), "model")
        if place.is_dir():
            if not (place / "model_index.json").exists() or not any((place / "vae").glob("*.safetensors")):
                return None
            _, family = judged(place)
        elif place.exists() or str(model).count("/") != 1 or "@" in str(model):
            return None
        on = pick_device(device)
        opened = Autoencoder.open(
            place if place.is_dir() else model, device=on, dtype=pick_dtype(dtype, on), decoder=False
        )
        side, toy = RESOLUTION, False
        if place.is_dir():
            side, toy = _side(place, family.denoiser, opened.factor), is_toy_folder(place)
        name = own_name(str(model))
        told = name if stands_for(name) is None else f"the model {name}"
        return cls([Surrogate(opened, side, told, toybox=toy)])

    @property
    def by_title(self) -> dict[str, Autoencoder]:
        """The autoencoders by the names that readers know; a name that comes again has a number."""
        found: dict[str, Autoencoder] = {}
        for one in self:
            called = title(one.name)
            again = sum(name == called or name.startswith(f"{called} #") for name in found)
            found[f"{called} #{again + 1}" if again else called] = one.autoencoder
        return found

    @property
    def resolution(self) -> int:
        """The largest [px]."""
        return max(one.resolution for one in self)

    @property
    def device(self) -> torch.device:
        """The first one's."""
        return self[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The one with the fewest bits."""
        return min((one.dtype for one in self), key=lambda dtype: torch.finfo(dtype).bits)

    @property
    def fingerprint(self) -> str:
        return " ".join(one.fingerprint for one in self)

    @property
    def against(self) -> Against:
        return Against(
            kind="model", models=tuple(_told(one) for one in self),
            fingerprints=tuple(one.fingerprint for one in self), toy=all(one.toy for one in self),
        )  # fmt: skip

    def conditions(self, prompt: str) -> dict[Surrogate, Condition]:
        """The prompt as each whole model reads it. UsageError: see `check_prompt`."""
        self.check_prompt(prompt)
        whole = [(one, one.model) for one in self if one.model is not None]
        return {one: model.condition([prompt]).detach() for one, model in whole}

    def all_conditions(self, prompt: str) -> dict[Surrogate, Condition]:
        """As `conditions`. UsageError also for an autoencoder without a model."""
        for one in self:
            _ = one.whole
        return self.conditions(prompt)

    def check_prompt(self, prompt: str) -> None:
        """UsageError if a model does not read the whole prompt."""
        for one in self:
            if one.model is not None and (reason := one.model.conditioner.too_long(prompt)):
                raise UsageError(reason)

    def frozen(self) -> Any:
        """A context in which no weight gets a gradient: see `frozen`."""
        return frozen(*(network for one in self for network in one.networks))


def _told(one: Surrogate) -> str:
    """Its name. A whole model that is called like an autoencoder says that it is whole."""
    return one.name if one.model is None or stands_for(one.name) is None else f"the model {one.name}"


def _side(folder: Path, denoiser: str, factor: int) -> int:
    """Side of a model's pictures [px], `RESOLUTION` at most."""
    own = folder / "unlikeness.json"
    given = read_object(own, folder).get("default_resolution") if own.exists() else None
    if given is None:
        latents = read_object(folder / denoiser / "config.json", folder).get("sample_size")
        given = latents * factor if isinstance(latents, int) else None
    return min(given, RESOLUTION) if isinstance(given, int) and given >= factor else RESOLUTION


Models: TypeAlias = "TextToImage | Surrogate | Sequence[TextToImage | Surrogate]"


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, evaluation mode and no gradient to any weight; afterwards everything as before."""
    parts = [part for module in modules for part in module.modules()]
    weights = [weight for module in modules for weight in module.parameters()]
    modes = [part.training for part in parts]
    wants = [weight.requires_grad for weight in weights]
    try:
        for part in parts:
            part.training = False
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
        for weight, want in zip(weights, wants, strict=True):
            weight.requires_grad_(want)
