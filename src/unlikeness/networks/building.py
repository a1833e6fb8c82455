"""A network from its configuration and its weights; the file of weights decides how much memory it takes.

The network is first built without memory (on torch's meta device). The tensors of the file then take the
place of its parameters, where every name and every shape fits. So a configuration that asks for terabytes is
refused at once, and no library's loader sees the folder.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unlikeness.errors import UnlikenessError, one_line
from unlikeness.foreign import reason
from unlikeness.networks.configs import of_transformers
from unlikeness.networks.quantized import dequantized

__all__ = ["build", "fill", "quiet", "sentence", "with_floats"]

_FLOATS = (
    "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "initializer_range", "initializer_factor",
    "logit_scale_init_value",
)  # fmt: skip

_OLD_ATTENTION = re.compile(r"\.(query|key|value|proj_attn)\.(weight|bias)$")
_SAME = {"encoder.embed_tokens.weight": "shared.weight", "shared.weight": "encoder.embed_tokens.weight"}
"""Names of one weight in a T5, of which a file may hold one or both."""

_NEW = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@contextmanager
def sentence(what: str) -> Iterator[None]:
    """Turn whatever a library raises inside about a stranger's values into one sentence about `what`.

    Too little memory is no fault of the file: that error passes.
    """
    try:
        yield
    except (UnlikenessError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise
        raise UnlikenessError(f"{what} cannot be used ({reason(error)}); fetch or save it again") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust, such as tokenizers
            raise
        raise UnlikenessError(f"{what} cannot be used ({reason(error)}); fetch or save it again") from error


def build(kind: str, config: Mapping[str, Any], what: str) -> nn.Module:
    """The network of class `kind` with this configuration (from `configs.read_config`), without memory.

    what: the network's name in a message. UnlikenessError for values that do not fit together, and for a
    class that the installed libraries are too old for.
    """
    import diffusers

    if not of_transformers(kind) and not hasattr(diffusers, kind):
        raise UnlikenessError(
            f"{what} is a {kind}, which the installed diffusers and transformers do not have; upgrade both"
        )
    with sentence(what), warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # torch warns about odd sizes; `fill` refuses what does not fit
        network: nn.Module
        if of_transformers(kind):
            import transformers

            made = getattr(transformers, kind)
            network = made(made.config_class(**with_floats(config)))
        else:
            network = getattr(diffusers, kind).from_config({**config, "_class_name": kind})
    return network


def with_floats(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of transformers with 1 written as 1.0 where it insists on that."""
    return {name: float(value) if name in _FLOATS else value for name, value in config.items()}


def fill(
    network: nn.Module, tensors: Mapping[str, Tensor], what: str, dtype: torch.dtype | None = None
) -> nn.Module:
    """The network with these tensors in the place of its parameters, in eval mode.

    dtype: of those that are quantized, which are opened in full (see `quantized`); None: float32.

    The names of transformers before and after version 5, and of diffusers' first attention, are understood.
    Tensors that the network does not have are left out. UnlikenessError, about `what`, for tensors that are
    missing, of another shape, or no real numbers.
    """
    wanted, tensors = network.state_dict(), dequantized(tensors, what, dtype)
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
    for name, other in _SAME.items():
        if name in wanted and name not in state and other in state:
            state[name] = state[other]
    missing = sorted(name for name in wanted if name not in state and not name.endswith("position_ids"))
    if missing:
        raise UnlikenessError(
            f"{what} lacks {len(missing)} tensors, {missing[0]} for one; fetch or save it again"
        )
    with sentence(what):
        network.load_state_dict(state, strict=False, assign=True)
        if any(name in wanted for name in _SAME):
            tied: Any = network
            tied.tie_weights()
        for module in list(network.modules()):
            _compute_buffers(module)
    return network.eval()


def _compute_buffers(module: Any) -> None:
    """The module's own buffers, where no file stores them: 0, 1, 2, ... for the places of a CLIP's tokens,
    and what follows from the configuration where a module has nothing else (a rotary embedding)."""
    missing = {name: buffer for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta}
    if not missing:
        return
    if hasattr(module, "config") and next(module.parameters(), None) is None:
        found = dict(type(module)(module.config).named_buffers(recurse=False))
    else:
        found = {name: torch.arange(one.shape[-1]).expand(one.shape) for name, one in missing.items()}
    for name in missing:
        module.register_buffer(name, found[name], persistent=False)


def _names(name: str) -> Iterator[str]:
    """The names that this tensor may have in the network."""
    yield name
    yield name.removeprefix("text_model.")
    yield name.removeprefix("model.")  # of a whole language model
    yield f"text_model.{name}"
    yield _OLD_ATTENTION.sub(lambda m: f".{_NEW[m[1]]}.{m[2]}", name)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the bars and remarks of diffusers and transformers off the terminal; errors are still logged."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    levels = [log.get_verbosity() for log in logs]
    bars = [log.is_progress_bar_enabled() for log in logs]
    for log in logs:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level, bar in zip(logs, levels, bars, strict=True):
            log.set_verbosity(level)
            if bar:
                log.enable_progress_bar()
