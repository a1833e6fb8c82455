"""The parts of a model from a single file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlikeness.diffusion.hub import locate
from unlikeness.diffusion.loading import Components, load_folder, read_index
from unlikeness.diffusion.single_file.carried import ZERO_SNR, write_folder
from unlikeness.diffusion.single_file.kinds import FLOW, SD3, Found, found_in, look
from unlikeness.diffusion.single_file.names import FLUX, FLUX_NORMS, stacked
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError
from unlikeness.networks.building import quiet, sentence
from unlikeness.networks.gguf import GGUF, read_gguf, read_gguf_header
from unlikeness.networks.quantized import dequantized
from unlikeness.networks.weights import read_weights
from unlikeness.tensors import read_layout, read_tensors

__all__ = ["converted", "load_file", "open_place", "read_file", "tensors_of"]

_LDM = "model.diffusion_model."

_SAME = {"encoder.embed_tokens.weight": "shared.weight"}
"""Of T5: one weight, which a file holds once."""


def open_place(
    place: Path, *, dtype: torch.dtype, name: str, prediction: str | None, config: str | Path | None,
    outline: bool = False,
) -> tuple[Components, Found | None]:  # fmt: skip
    """The parts of a diffusers folder, or those of a single file and what it is. See `load_file`."""
    if not place.is_file():
        return load_folder(place, dtype=dtype, name=name, outline=outline), None
    return load_file(place, dtype=dtype, name=name, prediction=prediction, config=config, outline=outline)


def load_file(
    path: Path, *, dtype: torch.dtype, name: str | None = None, prediction: str | None = None,
    config: str | Path | None = None, outline: bool = False,
) -> tuple[Components, Found]:  # fmt: skip
    """Load a single file of a known kind on the CPU.

    Args:
        name: by which its kind may be recognised (Turbo, Lightning, ...).
        prediction: "epsilon" or "v", for a file that does not say it.
        config: a diffusers folder or a hub name with the configurations and tokenizers, and with the weights
            of those parts that the file lacks; None: what the package carries for the kind.
        outline: leave the networks on torch's meta device, without weights.

    Raises:
        UsageError: the file holds no model of a known kind, or is not whole without `config`.
        UnlikenessError: it is damaged, or of other sizes than the configurations.
    """
    found = look(path, prediction=prediction)
    tensors = _shapes(path) if outline else read_file(path, dtype)
    found = found or found_in(path, {name: tuple(one.shape) for name, one in tensors.items()}, {},
                              prediction=prediction)  # fmt: skip
    found.check(config)
    half = dtype in (torch.float16, torch.bfloat16)
    with _folder(found, config, half=half, weights=not outline) as folder:

        def weights(part: str, network: Any) -> Mapping[str, Tensor] | None:
            if outline and (part in found.lacking or found.quantized):
                return None  # the shapes of quantized weights are not in the header
            if part in found.lacking:
                return read_weights(folder, part, half=half)
            with sentence(f"the checkpoint {path}"):
                own = converted(found, part, tensors, network)
            _check_sizes(found, part, own, network, config)
            return own

        less = read_index(folder).family.optional if found.optional else ()
        parts = load_folder(folder, dtype=dtype, name=name, weights=weights, called=path, without=less)
    if config is not None and found.kind.prediction != FLOW:
        scheduler = parts.objects["scheduler"]
        said: dict[str, Any] = {"prediction_type": found.prediction} if found.certain else {}
        said |= ZERO_SNR if found.zero_snr else {}
        parts.objects["scheduler"] = type(scheduler).from_config({**scheduler.config, **said})
    return parts, found


@contextmanager
def _folder(found: Found, config: str | Path | None, *, half: bool, weights: bool) -> Iterator[Path]:
    """The diffusers folder of what the file lacks: the given one, checked, or the carried one."""
    if config is None:
        with tempfile.TemporaryDirectory(prefix="unlikeness-") as work:
            yield write_folder(found, Path(work))
        return
    folder = locate(config, half=half, carried=False, weights=found.lacking if weights else ())
    if folder.is_file():
        raise UsageError(f"--model-config {config} is a single file too; give a diffusers folder")
    pipeline = read_index(folder).family.pipeline
    if pipeline != found.kind.pipeline:
        raise UsageError(
            f"--model-config {config} is a {pipeline}, and {found.path} is a {found.kind.said}; give the "
            "folder of a relative"
        )
    yield folder


def read_file(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their own names. UnlikenessError if it cannot be read.

    dtype: of those that are quantized, which are opened in full. UsageError for a quantization that is not
    read.
    """
    try:
        if path.suffix.lower() == GGUF:
            return read_gguf(path, dtype)
        return dequantized(read_tensors(path), f"the checkpoint {path}", dtype)
    except UnreadableError as error:
        raise UnlikenessError(f"the checkpoint {path} cannot be read ({error}); fetch it again") from error


def _shapes(path: Path) -> dict[str, Tensor]:
    """As `read_file`, without memory for the values."""
    suffix = path.suffix.lower()
    try:
        if suffix == GGUF:
            shapes = read_gguf_header(path).shapes
        elif suffix == ".safetensors":
            shapes = {name: one.shape for name, one in read_layout(path).tensors.items()}
        else:
            shapes = {name: tuple(one.shape) for name, one in read_tensors(path).items()}
    except UnreadableError as error:
        raise UnlikenessError(f"the checkpoint {path} cannot be read ({error}); fetch it again") from error
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def converted(found: Found, part: str, tensors: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The tensors of one part under diffusers' names. network: the part, whose sizes decide some names."""
    from diffusers.loaders import single_file_utils as utils

    start, own = found.parts[part], tensors_of(found, part, tensors)
    with quiet():
        if part == "vae":
            named = utils.convert_ldm_vae_checkpoint(own, network.config)
        elif part == "unet":
            named = utils.convert_ldm_unet_checkpoint(_under(_LDM, start, own), network.config)
        elif found.kind is SD3 and part == "transformer":
            named = utils.convert_sd3_transformer_checkpoint_to_diffusers(_under("", start, own))
        elif part == "transformer":
            named = _flux(_under("", start, own), network)
        elif start.endswith(".model."):
            named = utils.convert_open_clip_checkpoint(network, own, start)
        else:
            named = _under("", start, own)
            if found.kind is SD3 and part == "text_encoder":  # which has none of its own, as in diffusers
                width = network.config.hidden_size
                named.setdefault("text_projection.weight", torch.eye(width))
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def tensors_of(found: Found, part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of one part, under their own names."""
    start = found.parts[part]
    others = tuple(other for other in found.parts.values() if other and not start)
    inside = (name for name in tensors if name.startswith(start) and not name.startswith(others))
    return {name: tensors[name] for name in inside}


def _under(new: str, start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {new + name.removeprefix(start): one for name, one in tensors.items()}


def _flux(tensors: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The tensors of FLUX.1's transformer. diffusers' own conversion knows one width only.

    A tensor that is none of the network's keeps its name.
    """
    sizes = {name: len(one) for name, one in network.state_dict().items()}
    layers = {name.rpartition(".")[0] for name in sizes}
    found = dict(tensors)
    for table, ends in ((FLUX, {"weight": "weight", "bias": "bias"}), (FLUX_NORMS, {"scale": "weight"})):
        for own, parts in stacked(table, layers).items():
            for end, new in ends.items():
                if (whole := found.pop(f"{own}.{end}", None)) is None:
                    continue
                if parts == ("norm_out.linear",):  # shift and scale, in the other order
                    whole = torch.cat(whole.chunk(2)[::-1])
                names, at = [f"{part}.{new}" for part in parts], 0
                for name in names[:-1]:
                    found[name] = whole[at : at + sizes[name]].clone()  # no part of the others' memory
                    at += sizes[name]
                found[names[-1]] = whole[at:].clone() if at else whole
    return found


def _check_sizes(
    found: Found, part: str, tensors: Mapping[str, Tensor], network: Any, config: str | Path | None
) -> None:
    """UnlikenessError for a relative of other sizes, or with other layers, than the configuration."""
    wanted = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    further = [name for name in tensors if name not in wanted] if part == "transformer" else []
    for name, tensor in tensors.items():
        if name in wanted and tuple(tensor.shape) != wanted[name]:
            why = f"{one_line(name)[:80]} is {list(tensor.shape)}, and {list(wanted[name])} there"
            break
    else:
        lacking = [n for n in wanted if n not in tensors and n.removeprefix("text_model.") not in tensors
                   and f"text_model.{n}" not in tensors and not n.endswith("position_ids")
                   and _SAME.get(n, n) not in tensors]  # fmt: skip
        if lacking:
            why = f"it lacks {len(lacking)} tensors, {lacking[0]} for one"
        elif further:
            why = f"it has {len(further)} more tensors, {one_line(further[0])[:80]} for one"
        else:
            return
    usual = f"in {found.kind.said}" if config is None else f"in --model-config {config}"
    raise UnlikenessError(
        f"the {part} in {found.path} is of another size than {usual} ({why}); give --model-config with a "
        "diffusers folder of the same size, or fetch the file again"
    )
