"""What a single file holds, from the names and shapes in its header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unlikeness.diffusion.single_file import refusals
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.networks.gguf import GGUF, read_gguf_header
from unlikeness.networks.quantized import quantization
from unlikeness.tensors import read_layout

__all__ = [
    "FLOW", "KINDS", "PREDICTIONS", "SD3", "SUFFIXES", "Found", "Kind", "check_prediction", "found_in",
    "look", "place",
]  # fmt: skip

SUFFIXES = (".safetensors", ".ckpt", GGUF)

PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}
"""What `--prediction` may be -> diffusers' word."""

FLOW = "flow"
"""What a flow transformer predicts: its velocity, and nothing else."""

_MOST = 20_000
"""Tensors of a file. SDXL's has 2,515."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """A family's original layout.

    said: its name in messages.
    pipeline: of diffusers.
    carried: its configurations, a file in `carried/`; "" if none are carried.
    denoiser: which of the parts it is.
    parts: each part with weights -> how the names of its tensors may begin.
    prediction: the usual prediction type; "" if files of the kind differ and do not say it.
    """

    said: str
    pipeline: str
    carried: str
    denoiser: str
    parts: Mapping[str, tuple[str, ...]]
    prediction: str


_MODEL = "model.diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_ENCODERS = "text_encoders."
"""Before the text encoders of a flow transformer, which the layout of Stable Diffusion 3 began."""

SDXL = Kind(
    "Stable Diffusion XL", "StableDiffusionXLPipeline", "sdxl", "unet",
    {
        "unet": (_MODEL, ""),
        "vae": _VAE,
        "text_encoder": ("conditioner.embedders.0.transformer.",),
        "text_encoder_2": ("conditioner.embedders.1.model.",),
    },
    "epsilon",
)  # fmt: skip
SD2 = Kind(
    "Stable Diffusion 2", "StableDiffusionPipeline", "sd2", "unet",
    {"unet": (_MODEL, ""), "vae": _VAE, "text_encoder": ("cond_stage_model.model.",)}, "",
)  # fmt: skip
SD1 = Kind(
    "Stable Diffusion 1", "StableDiffusionPipeline", "sd1", "unet",
    {"unet": (_MODEL, ""), "vae": _VAE, "text_encoder": ("cond_stage_model.transformer.",)}, "epsilon",
)  # fmt: skip
SD3 = Kind(
    "Stable Diffusion 3", "StableDiffusion3Pipeline", "sd3", "transformer",
    {
        "transformer": (_MODEL, ""),
        "vae": _VAE,
        "text_encoder": (f"{_ENCODERS}clip_l.transformer.",),
        "text_encoder_2": (f"{_ENCODERS}clip_g.transformer.",),
        "text_encoder_3": (f"{_ENCODERS}t5xxl.transformer.",),
    },
    FLOW,
)  # fmt: skip
FLUX = Kind(
    "FLUX.1", "FluxPipeline", "", "transformer",
    {
        "transformer": (_MODEL, ""),
        "vae": _VAE,
        "text_encoder": (f"{_ENCODERS}clip_l.transformer.",),
        "text_encoder_2": (f"{_ENCODERS}t5xxl.transformer.",),
    },
    FLOW,
)  # fmt: skip

KINDS = (SDXL, SD2, SD1, SD3, FLUX)

_SIDE = 128
"""Latents of a Stable Diffusion 3: 1024 pixels."""

_MARKS = ("joint_blocks.", "double_blocks.", "input_blocks.")
"""How the names in a denoiser begin, after the start of its part: Stable Diffusion 3, FLUX.1, and a U-Net."""


@dataclass(frozen=True)
class Found:
    """A file and what it is.

    parts: each part that the file holds -> how the names of its tensors begin.
    prediction: diffusers' word, or `FLOW`.
    zero_snr: the file says that its noise levels end without any signal.
    certain: the user or the file says the prediction type; else it is the usual one.
    settings: of the denoiser's configuration, read from the shapes.
    quantized: how its weights are; "" for plain ones.
    """

    path: Path
    kind: Kind
    parts: Mapping[str, str]
    prediction: str
    zero_snr: bool = False
    certain: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    quantized: str = ""

    @property
    def said(self) -> str:
        """The prediction type in the words of `--prediction`; "" if there is nothing to say."""
        return next((word for word, long in PREDICTIONS.items() if long == self.prediction), "")

    @property
    def optional(self) -> tuple[str, ...]:
        """The parts that are not in the file, and need not be: a Stable Diffusion 3 works without T5."""
        clips = self.kind is SD3 and "text_encoder" in self.parts
        return ("text_encoder_3",) if clips and "text_encoder_3" not in self.parts else ()

    @property
    def lacking(self) -> tuple[str, ...]:
        """The parts that the file must get from elsewhere."""
        return tuple(part for part in self.kind.parts if part not in (*self.parts, *self.optional))

    @property
    def line(self) -> str:
        """One line for the user."""
        line = f"{self.path} is a single file of {self.kind.said}, in its original layout"
        if self.said:
            line += f", with {'v' if self.said == 'v' else 'epsilon'}-prediction"
        if self.quantized:
            line += f"; its weights are quantized ({self.quantized}), and opened in full"
        if self.lacking:
            line += f"; it lacks {_listed(self.lacking)}, which --model-config has"
        return line

    def check(self, config: object) -> None:
        """UsageError if the model is not whole without `--model-config`, and that is not given."""
        if config is not None:
            return
        if self.lacking:
            raise UsageError(
                f"{self.path} is a {self.kind.said} without {_listed(self.lacking)}; give --model-config "
                "with a diffusers folder or a hub name, from which these are taken"
            )
        if not self.kind.carried or "text_encoder_3" in self.parts:
            raise UsageError(
                f"{self.path} is a whole {self.kind.said}, without the tokenizer of its T5; give "
                "--model-config with a diffusers folder or a hub name that has it"
            )


def check_prediction(prediction: str | None) -> None:
    """UsageError unless it is one of PREDICTIONS, or None."""
    if prediction is not None and prediction not in PREDICTIONS:
        raise UsageError(
            f"--prediction {prediction!r} is unknown; it must be one of {', '.join(PREDICTIONS)}"
        )


def place(path: Path) -> Path | None:
    """The checkpoint at `path`: a file itself, or the only one in a folder without model_index.json.

    None for a diffusers folder, and for a folder without a checkpoint. UsageError for a folder with several,
    and for a file that is none.
    """
    if path.is_dir():
        if (path / "model_index.json").exists():
            return None
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        if len(inside) > 1:
            names = ", ".join(one_line(file.name)[:60] for file in inside[:4])
            raise UsageError(f"{path} holds {len(inside)} checkpoints ({names}, ...); give one of the files")
        return inside[0] if inside else None
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} is no checkpoint; give a {' or '.join(SUFFIXES)} file, a diffusers folder or a hub name"
        )
    return path


def look(path: Path, *, prediction: str | None = None) -> Found | None:
    """What the file at `path` is, without torch and without a weight. None for a .ckpt, whose names cannot
    be read before its tensors.

    prediction: one of PREDICTIONS. Raises as `found_in`; UnlikenessError for a damaged file.
    """
    check_prediction(prediction)
    if path.suffix.lower() == ".ckpt":
        return None
    try:
        if path.suffix.lower() == GGUF:
            found = found_in(path, read_gguf_header(path).shapes, {}, prediction=prediction)
            return replace(found, quantized="GGUF")
        layout = read_layout(path)
    except UnreadableError as error:
        raise UnlikenessError(f"the checkpoint {path} cannot be read ({error}); fetch it again") from error
    shapes = {name: one.shape for name, one in layout.tensors.items()}
    return found_in(path, shapes, layout.metadata, prediction=prediction)


def found_in(
    path: Path, shapes: Shapes, metadata: Mapping[str, str], *, prediction: str | None = None
) -> Found:
    """What a file with these tensors is. UsageError, in one sentence, for anything but a known denoiser."""
    kind, parts = _parts(path, shapes)
    if kind.prediction == FLOW:
        if prediction:
            raise UsageError(f"{path} is a {kind.said}, which predicts a velocity; leave --prediction out")
        settings = _sd3_settings(shapes, parts["transformer"]) if kind is SD3 else {}
        return Found(path, kind, parts, FLOW, settings=settings, quantized=quantization(shapes))
    said = metadata.get("modelspec.prediction_type", "").lower()
    told = PREDICTIONS.get(said.removesuffix("_prediction").removesuffix("-prediction"), "")
    told = "v_prediction" if "v_pred" in shapes else told  # trainers of v-models add such a tensor
    told = told or PREDICTIONS.get(_beside(path), "")
    chosen = PREDICTIONS[prediction] if prediction else told or kind.prediction
    if not chosen:
        raise UsageError(
            f"{path} is a {kind.said}, and such a file does not say what it predicts; give --prediction "
            "epsilon (the base models, 512 pixels) or --prediction v (768 pixels)"
        )
    return Found(
        path, kind, parts, chosen, "ztsnr" in shapes, certain=bool(prediction or told),
        quantized=quantization(shapes),
    )  # fmt: skip


def _beside(path: Path) -> str:
    """What an immunized file's folder says of it."""
    own = path.with_name("unlikeness.json")
    if not own.is_file():
        return ""
    try:
        content = read_json(own)
    except UnreadableError as error:
        raise UnlikenessError(f"{own} cannot be read ({error}); correct or delete it") from error
    return str(content.get("prediction")) if isinstance(content, dict) else ""


def _parts(path: Path, shapes: Shapes) -> tuple[Kind, dict[str, str]]:
    """The kind, and the parts that are there. UsageError says what a file holds that has no denoiser."""
    if len(shapes) > _MOST:
        raise UnlikenessError(f"{path} has {len(shapes)} tensors, more than any model; give another file")
    refusals.check_adapter(path, shapes)
    start, mark = next(
        ((start, mark) for start in (_MODEL, "") for mark in _MARKS if _has(shapes, start + mark)), ("", "")
    )
    if not mark:
        raise refusals.without_denoiser(path, shapes)
    refusals.check_relative(path, shapes)
    kind = {_MARKS[0]: SD3, _MARKS[1]: FLUX}.get(mark) or _of_unet(shapes, start)
    found = {
        part: next(one for one in starts if _has(shapes, one))
        for part, starts in kind.parts.items()
        if part != kind.denoiser and any(_has(shapes, one) for one in starts)
    }
    reads, draws = _channels(shapes, start, mark)
    if reads != draws and not quantization(shapes):  # whose shapes are packed
        raise UsageError(
            f"{path} is a {kind.said} of {reads} input channels, not {draws} (for inpainting, depth or "
            "editing); give its text-to-image relative"
        )
    return kind, {kind.denoiser: start, **found}


_ENDS = {
    _MARKS[0]: ("x_embedder.proj", "final_layer.linear"), _MARKS[1]: ("img_in", "final_layer.linear"),
    _MARKS[2]: ("input_blocks.0.0", "out.2"),
}  # fmt: skip
"""The first and the last layer of a denoiser."""


def _channels(shapes: Shapes, start: str, mark: str) -> tuple[int, int]:
    """(input, output) channels of a denoiser, those of a patch in a transformer; (0, 0) if none show."""
    first, last = (shapes.get(f"{start}{name}.weight", ()) for name in _ENDS[mark])
    if len(first) not in (2, 4) or not last:
        return 0, 0
    return first[1] * (first[2] * first[3] if mark == _MARKS[0] and len(first) == 4 else 1), last[0]


def _of_unet(shapes: Shapes, start: str) -> Kind:
    """By the text encoders; without them, by what the U-Net reads."""
    for kind in (SDXL, SD2, SD1):
        if any(_has(shapes, one) for one in kind.parts["text_encoder"]):
            return kind
    if _has(shapes, f"{start}label_emb."):
        return SDXL
    width = shapes.get(f"{start}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", ())
    return SD2 if width[1:] == (1024,) else SD1


def _sd3_settings(shapes: Shapes, start: str) -> dict[str, Any]:
    """Of the transformer of a Stable Diffusion 3 or 3.5: its size and its attention."""
    blocks = re.compile(re.escape(start) + r"joint_blocks\.(\d{1,3})\.(x_block\.attn2\.)?")
    found = [match for match in map(blocks.match, shapes) if match]
    widths = shapes.get(f"{start}context_embedder.weight", ())
    places = shapes.get(f"{start}pos_embed", ())
    settings: dict[str, Any] = {"num_layers": 1 + max(int(one[1]) for one in found)}
    if len(widths) == 2:
        heads = max(1, widths[0] // 64)
        settings |= {"num_attention_heads": heads, "caption_projection_dim": widths[0]}
    if len(places) == 3:
        settings["pos_embed_max_size"] = side = round(places[1] ** 0.5)
        settings["sample_size"] = min(_SIDE, 2 * side)
    twice = sorted({int(one[1]) for one in found if one[2]})
    settings |= {"dual_attention_layers": twice} if twice else {}
    normed = _has(shapes, f"{start}joint_blocks.0.x_block.attn.ln_q")
    return settings | ({"qk_norm": "rms_norm"} if normed else {})


def _has(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
