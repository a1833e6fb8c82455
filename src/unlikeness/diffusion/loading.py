"""A diffusers folder read into its components, as a stranger's: nothing in it is run or believed.

1. `read_index`: model_index.json may name known classes only. An Auto class of transformers, or a class from
   anywhere else, could lead to code in the model's own folder.
2. `networks.configs`, `tokens`: every setting is in bounds.
3. `networks.building`: every weight has the shape that its configuration asks for, before memory is taken.
4. `try_networks`, `check_scheduler`: the parts fit together. The smallest picture goes through the
   networks, and two steps of the schedule are taken.

Weights are read from safetensors, single or sharded, in the plain or a variant's name. Where a folder holds
nothing but pickles they are read with `torch.load(weights_only=True)`: tensors only, never code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlikeness import finite
from unlikeness.diffusion.expanding import expanding
from unlikeness.diffusion.families import BESIDE, FAMILIES, RELATIVES, Defaults, Family, family_of
from unlikeness.diffusion.tokens import load_tokenizer
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, check_file
from unlikeness.networks.building import build, fill, quiet, sentence
from unlikeness.networks.configs import SCHEDULER, number, one_of, read_config, read_object, whole
from unlikeness.networks.weights import read_weights

if TYPE_CHECKING:
    from unlikeness.diffusion.model import TextToImage

__all__ = [
    "OWN_FILE", "Components", "Index", "Weights", "check_model", "check_scheduler", "check_weights",
    "judged", "load_folder", "load_scheduler", "read_index", "try_networks",
]  # fmt: skip

_COPIED = ("README.md", "immunization.json")
"""Files that a later step reads. They are checked before anything long."""


OWN_FILE = "unlikeness.json"
"""What a model draws with, where diffusers' files do not tell."""

_LARGEST = 4096
"""Pixels of a side that a model may draw by default, four times those of the largest published ones. Memory
grows with the square."""

_DEFAULTS = {
    "default_guidance": number(0, 100),
    "default_steps": whole(1, 1000),
    "default_resolution": whole(8, _LARGEST),
    "default_spacing": one_of("leading", "linspace", "trailing"),
}


_NOTHING = 1e-3
"""Share of the signal that is none. That of Stable Diffusion's last level is 0.068; a rescaled one has up to
2⁻¹²."""


@dataclass(frozen=True)
class Index:
    """What model_index.json says. classes: of each part that is loaded; carried: what is written into a copy
    without having been loaded."""

    family: Family
    classes: Mapping[str, str]
    carried: dict[str, Any]


def judged(folder: Path, said: str | None = None) -> tuple[dict[str, Any], Family]:
    """`model_index.json` of a folder with its classes checked, and the family that it names.

    The folder may hold nothing else yet. said: the model in a message. Raises as `read_index`.
    """
    said = said or f"model {folder}"
    path = folder / "model_index.json"
    if not path.exists():
        raise UsageError(
            f"{folder} is no diffusers model: it has no {path.name}; give the folder that holds that file"
        )
    index = read_object(path, folder)
    named = index.get("_class_name")
    relative = isinstance(named, str) and named in RELATIVES
    if isinstance(named, str):
        named = RELATIVES.get(named, named)
    if not isinstance(named, str) or named not in FAMILIES:
        kind = one_line(str(named))[:60]
        raise UsageError(
            f"{said} is a {kind}, which is not supported; give one of {', '.join(FAMILIES)}"
        )
    for name in index:
        if not name.isidentifier():  # they become names of folders
            raise UsageError(
                f"{said} has a part {one_line(name)[:60]!r}, which is no name; fetch or save it again"
            )
    family = family_of(named)
    family = family.lacking(name for name in family.optional if index.get(name) in (None, [None, None]))
    for name, entry in index.items():
        if _is_pair(entry) and not (relative and name in BESIDE):
            _check_class(family, said, name, *entry)
    return index, family


def read_index(folder: Path) -> Index:
    """`model_index.json` of a whole folder.

    UsageError if it is no model of a known family and of known classes; UnlikenessError if it is damaged.
    """
    index, family = judged(folder)
    for name in family.parts:
        if index.get(name) == [None, None]:
            raise UsageError(
                f"model {folder} has no {name}, as its model_index.json says (a refiner or a prior?), and so "
                "draws nothing from text alone; give its base model"
            )
        if not _is_pair(index.get(name)) or not (folder / name).is_dir():
            raise UsageError(
                f"model {folder} has no {name}/ folder, so it is no complete diffusers model; "
                "fetch or save it again"
            )
    classes = {name: index[name][1] for name in family.parts}
    carried = {name: index[name] for name in family.carried if name in index}
    carried |= {name: bool(index.get(name, default)) for name, default in family.flags.items()}
    return Index(family, classes, carried)


def _is_pair(entry: object) -> bool:
    """[library, class], both by name."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)


def _check_class(family: Family, model: str, name: str, library: str, kind: str) -> None:
    known = family.parts.get(name) or family.carried.get(name)
    said = f"the {name} of {model} is a {one_line(f'{library}.{kind}')[:80]}"
    if known is None:
        raise UsageError(f"{said}, a part that a {family.pipeline} does not have; give a model without it")
    if library not in ("diffusers", "transformers", known[0]):
        raise UsageError(f"{said}, custom code, which is never run; known are: {', '.join(known[1])}")
    if library != known[0] or kind not in known[1]:
        raise UsageError(f"{said}, which is never loaded; known are: {', '.join(known[1])}")


@dataclass(frozen=True)
class Components:
    """What a folder holds. objects: the parts by name. carried: entries of model_index.json that are kept
    without being loaded."""

    pipeline: str
    objects: dict[str, Any]
    carried: dict[str, Any]
    defaults: Defaults


Weights = Callable[[str, Any], Mapping[str, Tensor] | None]
"""(a part's name, its network without memory) -> its tensors by diffusers' names; None leaves it so."""


def load_folder(
    folder: Path, *, dtype: torch.dtype, name: str | None = None, weights: Weights | None = None,
    called: str | Path | None = None, outline: bool = False, without: Collection[str] = (),
) -> Components:  # fmt: skip
    """Load a diffusers folder of a known family on the CPU. name: by which its kind may be recognised.

    weights: where the tensors come from; None: from the folder. called: the model in messages. outline: leave
    the networks on torch's meta device, without weights. without: optional parts that are not wanted.

    Raises UsageError if it is no such folder, naming what is missing; UnlikenessError if a file of it is
    damaged, out of bounds, or does not fit the others.
    """
    index = read_index(folder)
    family = index.family.lacking(without) if without else index.family
    own = _own_defaults(folder, family)
    _check_copied(folder)
    configs = {
        name: read_config(folder, name, "config.json", kind, family.rules[kind])
        for name, kind in ((name, index.classes[name]) for name in family.networks)
    }
    with quiet():
        scheduler = load_scheduler(folder, index.classes["scheduler"])
        tokenizers = {
            name: expanding(load_tokenizer(folder, index.classes[name], part=name))
            for name in family.tokenizers
        }
        networks: dict[str, Any] = {
            name: build(index.classes[name], config, f"the {name} of model {folder}")
            for name, config in configs.items()
        }
        objects = {**networks, **tokenizers, "scheduler": scheduler}
        family.check_parts(Path(called or folder), objects)
        check_scheduler(Path(called or folder), scheduler, family)
        half = dtype in (torch.float16, torch.bfloat16)
        for part, network in () if outline else networks.items():
            tensors = weights(part, network) if weights else read_weights(folder, part, half=half)
            if tensors is not None:
                fill(network, tensors, f"the {part} of model {called or folder}", dtype)
    defaults = replace(family.defaults(objects, name or ""), **own)
    return Components(family.pipeline, objects, index.carried, defaults)


def load_scheduler(folder: Path, kind: str) -> Any:
    """The scheduler of class `kind` in a model's folder. UnlikenessError for settings out of bounds."""
    import diffusers

    config = read_config(folder, "scheduler", "scheduler_config.json", kind, SCHEDULER, scheduler=True)
    with sentence(f"the scheduler of model {folder}"):
        return getattr(diffusers, kind).from_config({**config, "_class_name": kind})


def _own_defaults(folder: Path, family: Family) -> dict[str, Any]:
    """Those of unlikeness.json, if the folder has one: fields of `Defaults`."""
    own = folder / OWN_FILE
    if not own.exists() and not own.is_symlink():
        return {}
    content, rules = read_object(own, folder), {**_DEFAULTS, "default_sampler": one_of(*family.samplers)}
    for key, rule in rules.items():
        if key in content and not rule.holds(content[key]):
            raise UnlikenessError(
                f"{own} has {key} = {str(content[key])[:40]!r}, which must be {rule.said}; correct it"
            )
    found = {key.removeprefix("default_"): content[key] for key in rules if key in content}
    return {**found, "guidance": float(found["guidance"])} if "guidance" in found else found


def _check_copied(folder: Path) -> None:
    for name in _COPIED:
        path = folder / name
        if path.exists() or path.is_symlink():
            try:
                check_file(path, folder)
            except UnreadableError as error:
                raise UnlikenessError(
                    f"{path} cannot be read ({error}); delete it or fetch it again"
                ) from error


def check_weights(model: TextToImage, called: str) -> None:
    """NotFiniteError, naming the part, if a weight is NaN or infinite. called: the model in the message."""
    named = {model.family.autoencoder: "the autoencoder", model.family.denoiser: finite.DENOISER}
    for name, network in zip(model.family.networks, model.networks, strict=True):
        if not finite.all_finite(network.parameters()):
            raise NotFiniteError(
                f"{named.get(name, finite.TEXT_ENCODER)} of {called} has weights that are not finite "
                f"(NaN or infinity){_of_weights(network.dtype)}"
            )


def _of_weights(dtype: torch.dtype) -> str:
    if torch.finfo(dtype).bits < 32:
        return f" in {str(dtype).removeprefix('torch.')}; --dtype float32 may help"
    return ": they are damaged, or a training has diverged; fetch or make the model again"


@torch.no_grad()
def check_model(model: TextToImage) -> None:
    """Show the model a plain picture and an empty prompt; NotFiniteError names the first part that fails.

    It costs a pass through every part but the decoder. Call it only after something has gone wrong.
    """
    check_weights(model, "the model")
    side = model.resolution
    plain = torch.linspace(0.25, 0.75, side).expand(1, 3, side, side)
    posterior = model.encode(plain)
    finite.check(torch.cat([posterior.mean, posterior.std]), finite.ENCODER, model.autoencoder.dtype)
    condition = model.condition([""])  # checked there
    t = torch.tensor([model.schedule.steps // 2], device=model.device)
    z_t = model.schedule.add_noise(posterior.mean, torch.zeros_like(posterior.mean), t)
    finite.check(model.predict(z_t, t, condition), finite.DENOISER, model.dtype)


def try_networks(folder: Path, model: TextToImage) -> None:
    """UnlikenessError unless a prompt, latents and a picture go through the networks, in the right shapes."""
    _check_resolution(folder, model)
    channels, side = model.autoencoder.channels, model.family.least_side(model.denoiser)
    pixels = side * model.autoencoder.factor
    latents = torch.zeros(1, channels, side, side, device=model.device, dtype=model.dtype)
    images = torch.zeros(1, 3, pixels, pixels, device=model.device)
    with torch.no_grad():
        with sentence(f"the {model.family.encoders[0]} of model {folder}"):
            condition = model.conditioner.encode(["a photo of a dog"])
        model.family.check_condition(folder, condition, model.denoiser)
        with sentence(f"the {model.family.denoiser} of model {folder}"):
            f = model.predict(latents, torch.zeros(1, dtype=torch.long, device=model.device), condition)
        with sentence(f"the vae of model {folder}"):
            z0 = model.encode(images).mean
            decoded = model.decode(latents)
    for part, shape, wanted in (
        (f"{model.family.denoiser} answers", f.shape, latents.shape),
        ("vae encodes pictures to", z0.shape, latents.shape),
        ("vae decodes latents to", decoded.shape, images.shape),
    ):
        if shape != wanted:
            raise UnlikenessError(
                f"the {part} {list(shape)} where {list(wanted)} is needed, in model {folder}; its parts "
                "do not belong together, fetch or save it again"
            )


def _check_resolution(folder: Path, model: TextToImage) -> None:
    """UnlikenessError unless the denoiser draws pictures of the model's own size."""
    given, factor = model.defaults.resolution, model.autoencoder.factor
    step, most = model.family.sides(model.denoiser)
    most = min(most, max(step, _LARGEST // factor))
    for side in model.latent_shape[1:]:
        if side % step or side > most or given not in (None, side * factor):
            named = "default_resolution in unlikeness.json" if given else "sample_size"
            raise UnlikenessError(
                f"model {folder} draws at {given or side * factor} px ({named}), which must be a multiple of "
                f"{step * factor} and at most {most * factor}; correct it"
            )


def check_scheduler(folder: Path, scheduler: Any, family: Family) -> None:
    """UnlikenessError unless the noise levels are finite and in range, and all samplers can use them."""
    what = f"the scheduler of model {folder}"
    with sentence(what):
        schedule = family.schedule(scheduler)
        tables = torch.stack([schedule.signal, schedule.noise])
    if not (bool(torch.isfinite(tables).all()) and bool(((tables >= 0) & (tables <= 1)).all())):
        raise UnlikenessError(
            f"{what} has noise levels that are no numbers from 0 to 1; correct the betas in "
            "scheduler/scheduler_config.json"
        )
    config = scheduler.config
    if schedule.prediction_type == "epsilon" and float(schedule.signal.min()) < _NOTHING:
        raise UsageError(
            f"{what} ends at pure noise (rescale_betas_zero_snr), where a predicted noise says nothing of "
            "the picture; set prediction_type to v_prediction, or rescale_betas_zero_snr to false, in "
            "scheduler/scheduler_config.json"
        )
    if schedule.prediction_type != "flow" and config.get("use_flow_sigmas"):
        raise UsageError(
            f"{what} draws along a flow (use_flow_sigmas), for which its {schedule.prediction_type} was not "
            "trained; set use_flow_sigmas to false in scheduler/scheduler_config.json"
        )
    with sentence(what), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # a schedule that ends at zero makes numpy say so
        for name in family.samplers:
            solver = family.solver(scheduler, name)
            family.set_steps(solver, min(2, schedule.steps), (1, 2, 2))
            z = torch.ones(1, 1, 2, 2)
            for t in solver.timesteps:
                z = solver.scale_model_input(z, t) if hasattr(solver, "scale_model_input") else z
                z = solver.step(torch.zeros_like(z), t, z, return_dict=False)[0]
