"""A network from its configuration and its file of weights, which decides how much memory it takes.

The network is first built without memory (on torch's meta device). Its weights then take the place of its
parameters, as they lie in the file, where every name and every shape fits. So a configuration that asks for
terabytes is refused at once, and no loader of a library sees the folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlikeness.diffusion.known import read_object
from unlikeness.diffusion.weights import Weights, choose_weights, needed_files
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, reason
from unlikeness.tensors import read_tensors

__all__ = ["build", "clip_text", "fill", "read_weights", "sentence", "with_floats"]

_FLOATS = ("layer_norm_eps", "initializer_range", "initializer_factor", "logit_scale_init_value")

_OLD_ATTENTION = re.compile(r"\.(query|key|value|proj_attn)\.(weight|bias)$")
_STEMS = dict.fromkeys(("", "text_encoder"), ("model.", "model-", "pytorch_model"))
_OTHER_STEMS = ("diffusion_pytorch_model",)
"""How the names of transformers' and of diffusers' weights begin: a folder may hold both."""

_NEW = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@contextmanager
def sentence(what: str) -> Iterator[None]:
    """Whatever a library raises inside about a stranger's values, as one sentence about `what`.

    Too little memory is no fault of the file's, and is told as everywhere.
    """
    try:
        yield
    except (UnlikenessError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise
        raise UnlikenessError(f"{what} cannot be used ({reason(error)}); fetch or save it again") from error


def build(kind: str, config: Mapping[str, Any], what: str) -> nn.Module:
    """The network of class `kind` with this configuration (from `configs.read_config`), its parameters
    without memory. what: it, for a message. UnlikenessError for values that do not fit together."""
    import diffusers

    with sentence(what), warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # of torch about odd sizes; what does not fit is told by `fill`
        if kind == "CLIPTextModel":
            import transformers

            network: nn.Module = transformers.CLIPTextModel(clip_text(config))
        else:
            network = getattr(diffusers, kind).from_config({**config, "_class_name": kind})
    return network


def clip_text(config: Mapping[str, Any]) -> Any:
    """transformers' CLIPTextConfig. The attention is torch's own, whatever a file names."""
    import transformers

    return transformers.CLIPTextConfig(**with_floats(config), attn_implementation="sdpa")


def with_floats(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a CLIP with 1 written as 1.0 where transformers insists on it."""
    return {name: float(value) if name in _FLOATS else value for name, value in config.items()}


def read_weights(folder: Path, part: str, *, half: bool, pickles: bool = True) -> dict[str, Tensor]:
    """The tensors of a part by name, from the files that `choose_weights` prefers. part: "" for the folder
    itself. pickles: whether to read them where there is nothing else.

    UsageError if there are none; UnlikenessError if a file is damaged, missing, or not in the folder itself.
    """
    inside = folder / part
    names = [file.name for file in inside.iterdir()]
    names = [name for name in names if name.startswith(_STEMS.get(part, _OTHER_STEMS))] or names
    chosen = choose_weights(names, half=half)
    if chosen is None or (chosen.format == "bin" and not pickles):
        where = f" in {part}/" if part else ""
        kind = UsageError if pickles else UnlikenessError
        raise kind(f"model {folder} has no weights{where} (*.safetensors); fetch or save it again")
    found: dict[str, Tensor] = {}
    for name in _files(folder, inside, names, chosen, half):
        path = inside / name
        try:
            found |= read_tensors(path, folder=folder)
        except UnreadableError as error:
            raise UnlikenessError(
                f"the weights {path} cannot be read ({error}); fetch or save the model again"
            ) from error
    return found


def _files(folder: Path, inside: Path, names: list[str], chosen: Weights, half: bool) -> list[str]:
    """The files that hold the chosen weights: names alone, of files in this folder."""
    files = needed_files(names, half=half)
    weights = [name for name in files if name.endswith(f".{chosen.format}")]
    if not chosen.sharded:
        return weights
    path = inside / next(name for name in files if name.endswith(".json") and ".index." in name)
    where = read_object(path, folder, most=1 << 24).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise UnlikenessError(f"{path} has no weight_map from names to files; fetch or save the model again")
    for name in where.values():
        if name not in weights:
            raise UnlikenessError(
                f"{path} names the file {one_line(name)[:80]!r}, which is none of the folder's; "
                "fetch or save the model again"
            )
    return sorted(set(where.values()))


def fill(network: nn.Module, tensors: Mapping[str, Tensor], what: str) -> nn.Module:
    """The network with these tensors in the place of its parameters, frozen in nothing, in eval mode.

    Names of transformers before and after version 5, and of diffusers' first attention, are understood; what
    the network does not have is left out. UnlikenessError, about `what`, if tensors are missing, of another
    shape, or no real numbers.
    """
    wanted = network.state_dict()
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        known = next((one for one in _names(name) if one in wanted), None)
        if known is None:
            continue
        if tensor.shape != wanted[known].shape:
            raise UnlikenessError(
                f"{what} has {one_line(name)} of shape {list(tensor.shape)}, and its configuration wants "
                f"{list(wanted[known].shape)}; fetch or save it again"
            )
        if wanted[known].is_floating_point() != tensor.is_floating_point():
            raise UnlikenessError(
                f"{what} has {one_line(name)} in {tensor.dtype}, which is no weight; fetch or save it again"
            )
        state[known] = tensor
    missing = sorted(name for name in wanted if name not in state and not name.endswith("position_ids"))
    if missing:
        raise UnlikenessError(
            f"{what} lacks {len(missing)} tensors, {missing[0]} for one; fetch or save it again"
        )
    with sentence(what):
        network.load_state_dict(state, strict=False, assign=True)
        for name, buffer in list(network.named_buffers()):
            if buffer.is_meta:  # 0, 1, 2, ..., which CLIP does not store; no other network here has any
                above, _, own = name.rpartition(".")
                places = torch.arange(buffer.shape[-1]).expand(buffer.shape)
                network.get_submodule(above).register_buffer(own, places, persistent=False)
    return network.eval()


def _names(name: str) -> Iterator[str]:
    """What a tensor of this name may be called in the network."""
    yield name
    yield name.removeprefix("text_model.")
    yield f"text_model.{name}"
    yield _OLD_ATTENTION.sub(lambda m: f".{_NEW[m[1]]}.{m[2]}", name)
