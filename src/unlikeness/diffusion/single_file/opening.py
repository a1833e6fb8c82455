"""The parts of a model from a single file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.diffusion.loading import Components, load_folder, read_index
from unlikeness.diffusion.single_file.carried import ZERO_SNR, write_folder
from unlikeness.diffusion.single_file.kinds import Found, Kind, found_in, look
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.networks.building import quiet, sentence
from unlikeness.tensors import read_tensors

__all__ = ["converted", "load_file", "open_place", "read_file"]


def open_place(
    place: Path, *, dtype: torch.dtype, name: str, prediction: str | None, config: str | Path | None
) -> tuple[Components, Found | None]:
    """The parts of a diffusers folder, or those of a single file and what it is. See `load_file`."""
    if not place.is_file():
        return load_folder(place, dtype=dtype, name=name), None
    folder = None if config is None else Path(config).expanduser()
    return load_file(place, dtype=dtype, name=name, prediction=prediction, config=folder)


def load_file(
    path: Path, *, dtype: torch.dtype, name: str | None = None, prediction: str | None = None,
    config: Path | None = None,
) -> tuple[Components, Found]:  # fmt: skip
    """Load a single file of a known kind on the CPU.

    Args:
        name: by which its kind may be recognised (Turbo, Lightning, ...).
        prediction: "epsilon" or "v", for a file that does not say it.
        config: a diffusers folder, whose weights are not read, with the configurations and tokenizers;
            None: those that the package carries for the kind.

    Raises:
        UsageError: the file holds no whole model of a known kind.
        UnlikenessError: it is damaged, or of other sizes than the configurations.
    """
    found = look(path, prediction=prediction)
    tensors = read_file(path)
    found = found or found_in(path, {name: tuple(one.shape) for name, one in tensors.items()}, {},
                              prediction=prediction)  # fmt: skip

    def weights(name: str, network: Any) -> Mapping[str, Tensor]:
        with sentence(f"the checkpoint {path}"):
            part = converted(found.kind, name, tensors, network)
        _check_sizes(found, name, part, network)
        return part

    if config is None:
        with tempfile.TemporaryDirectory(prefix="unlikeness-") as work:
            write_folder(found, Path(work))
            return load_folder(Path(work), dtype=dtype, name=name, weights=weights, called=path), found
    family = read_index(config).family
    if family.pipeline != found.kind.pipeline:
        raise UsageError(
            f"--model-config {config} is a {family.pipeline}, and {path} is a {found.kind.said}; give the "
            "folder of a relative"
        )
    parts = load_folder(config, dtype=dtype, name=name, weights=weights, called=path)
    scheduler = parts.objects["scheduler"]
    said: dict[str, Any] = {"prediction_type": found.prediction} if found.certain else {}
    if found.zero_snr:
        said |= ZERO_SNR
    parts.objects["scheduler"] = type(scheduler).from_config({**scheduler.config, **said})
    return parts, found


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their own names. UnlikenessError if it cannot be read."""
    try:
        return read_tensors(path)
    except UnreadableError as error:
        raise UnlikenessError(f"the checkpoint {path} cannot be read ({error}); fetch it again") from error


def converted(kind: Kind, part: str, tensors: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The tensors of one part under diffusers' names. network: the part, whose sizes decide some names."""
    from diffusers.loaders import single_file_utils as utils

    with quiet():
        if part == "vae":
            found = utils.convert_ldm_vae_checkpoint(_of(tensors, kind.autoencoder), network.config)
        elif part == "unet":
            found = utils.convert_ldm_unet_checkpoint(_of(tensors, kind.denoiser), network.config)
        elif kind.encoders[part].endswith(".model."):
            prefix = kind.encoders[part]
            found = utils.convert_open_clip_checkpoint(network, _of(tensors, prefix), prefix)
        else:
            prefix = kind.encoders[part]
            found = {name.removeprefix(prefix): one for name, one in _of(tensors, prefix).items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check_sizes(found: Found, part: str, tensors: Mapping[str, Tensor], network: Any) -> None:
    """UnlikenessError for a relative of other sizes than the configuration."""
    wanted = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    for name, tensor in tensors.items():
        if name in wanted and tuple(tensor.shape) != wanted[name]:
            why = f"{one_line(name)[:80]} is {list(tensor.shape)}, and {list(wanted[name])} is usual"
            break
    else:
        lacking = [n for n in wanted if n not in tensors and n.removeprefix("text_model.") not in tensors
                   and f"text_model.{n}" not in tensors and not n.endswith("position_ids")]  # fmt: skip
        if not lacking:
            return
        why = f"it lacks {len(lacking)} tensors, {lacking[0]} for one"
    raise UnlikenessError(
        f"the {part} in {found.path} is of another size than in {found.kind.said} ({why}); give "
        "--model-config FOLDER, a diffusers folder with its configurations, or fetch the file again"
    )
