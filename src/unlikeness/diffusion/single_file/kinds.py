"""What a single file holds, from the names and shapes in its header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.foreign import UnreadableError, read_json
from unlikeness.tensors import read_layout

__all__ = [
    "KINDS",
    "PREDICTIONS",
    "SUFFIXES",
    "Found",
    "Kind",
    "check_prediction",
    "kind_of",
    "look",
    "place",
]

SUFFIXES = (".safetensors", ".ckpt")

PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}
"""What `--prediction` may be -> diffusers' word."""

_MOST = 20_000
"""Tensors of a file. SDXL's has 2,515."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """A family's original layout.

    carried: its configurations, a file in `carried/`; said: its name in messages; pipeline: of diffusers;
    denoiser, autoencoder, encoders: how the names of their tensors begin; prediction: the usual prediction
    type, or "" if files of the kind differ and do not say it.
    """

    carried: str
    said: str
    pipeline: str
    denoiser: str
    autoencoder: str
    encoders: Mapping[str, str]
    prediction: str


_UNET, _VAE = "model.diffusion_model.", "first_stage_model."

KINDS = (
    Kind(
        "sdxl", "Stable Diffusion XL", "StableDiffusionXLPipeline", _UNET, _VAE,
        {
            "text_encoder": "conditioner.embedders.0.transformer.",
            "text_encoder_2": "conditioner.embedders.1.model.",
        },
        "epsilon",
    ),
    Kind(
        "sd2", "Stable Diffusion 2", "StableDiffusionPipeline", _UNET, _VAE,
        {"text_encoder": "cond_stage_model.model."}, "",
    ),
    Kind(
        "sd1", "Stable Diffusion 1", "StableDiffusionPipeline", _UNET, _VAE,
        {"text_encoder": "cond_stage_model.transformer."}, "epsilon",
    ),
)  # fmt: skip
"""In the order in which they are tried."""


@dataclass(frozen=True)
class Found:
    """A file and what it is. prediction: diffusers' word; zero_snr: the file says that its noise levels end
    without any signal. certain: the user or the file says the prediction type; else it is the usual one."""

    path: Path
    kind: Kind
    prediction: str
    zero_snr: bool
    certain: bool = False

    @property
    def said(self) -> str:
        """The prediction type in the words of `--prediction`."""
        return next(word for word, long in PREDICTIONS.items() if long == self.prediction)

    @property
    def line(self) -> str:
        """One line for the user."""
        how = "v-prediction" if self.prediction == "v_prediction" else f"{self.prediction}-prediction"
        return f"{self.path} is a single file of {self.kind.said}, in its original layout, with {how}"


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
            f"{path} is no checkpoint; give a .safetensors or .ckpt file, a diffusers folder or a hub name"
        )
    return path


def look(path: Path, *, prediction: str | None = None) -> Found | None:
    """What the file at `path` is, without torch and without a weight. None for a .ckpt, whose names cannot
    be read before its tensors.

    prediction: one of PREDICTIONS. Raises as `found_in`; UnlikenessError for a damaged file.
    """
    check_prediction(prediction)
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        layout = read_layout(path)
    except UnreadableError as error:
        raise UnlikenessError(f"the checkpoint {path} cannot be read ({error}); fetch it again") from error
    shapes = {name: one.shape for name, one in layout.tensors.items()}
    return found_in(path, shapes, layout.metadata, prediction=prediction)


def found_in(
    path: Path, shapes: Shapes, metadata: Mapping[str, str], *, prediction: str | None = None
) -> Found:
    """What a file with these tensors is. UsageError, in one sentence, for anything but a whole model."""
    kind = kind_of(path, shapes)
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
    return Found(path, kind, chosen, "ztsnr" in shapes, certain=bool(prediction or told))


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


def kind_of(path: Path, shapes: Shapes) -> Kind:
    """The kind of whole model. UsageError says what a file holds that is none."""
    if len(shapes) > _MOST:
        raise UnlikenessError(f"{path} has {len(shapes)} tensors, more than any model; give another file")
    for said, remedy, pattern in _PARTS:
        if any(pattern.search(name) for name in shapes):
            raise UsageError(f"{path} is {said}, no whole model; {remedy}")
    whole = any(name.startswith(_UNET) for name in shapes)
    if not whole:
        for said, pattern in _ALONE:
            if any(pattern.match(name) for name in shapes):
                raise UsageError(f"{path} holds {said} alone, no whole model; {_remedy(said)}")
        names = ", ".join(one_line(name)[:60] for name in sorted(shapes)[:2]) or "none"
        raise UsageError(f"{path} holds no model of a known kind (its first tensors: {names}); give another")
    for said, pattern in _OTHERS:
        if any(pattern.match(name) for name in shapes):
            raise UsageError(f"{path} is {said}, which is not supported as a single file; {_FOLDER}")
    kind = next((one for one in KINDS if _has(shapes, one.encoders.values())), None)
    if kind is None or not _has(shapes, [kind.autoencoder]):
        lacking = "its text encoder" if kind is None else "its autoencoder"
        raise UsageError(f"{path} holds a denoiser without {lacking}, no whole model; {_FOLDER}")
    first = shapes.get(f"{_UNET}input_blocks.0.0.weight", ())
    if len(first) == 4 and first[1] != 4:
        raise UsageError(
            f"{path} is a {kind.said} of {first[1]} input channels (for inpainting, depth or editing); give "
            "its text-to-image relative"
        )
    return kind


def _has(shapes: Shapes, starts: object) -> bool:
    return all(any(name.startswith(start) for name in shapes) for start in starts)  # type: ignore[attr-defined]


_FOLDER = "give a whole checkpoint, or a diffusers folder"

_PARTS = (
    ("a LoRA", "give it as --lora, and the model it was made for as --model",
     re.compile(r"lora_(up|down|A|B)\b|\.lora\.(up|down)\.|\.hada_w|\.lokr_w|_lora\.(up|down)\.|dora_scale$")),
    ("a Textual Inversion embedding", "give it as --embedding, and the model it was made for as --model",
     re.compile(r"^(emb_params|string_to_param|clip_[lg]|<[^<>]{1,80}>)$")),
    ("a ControlNet", "give the model it was made for", re.compile(r"^(control_model\.|controlnet_)")),
    ("of quantized weights", "give it in float32, float16, bfloat16 or float8",
     re.compile(r"\.(scale_weight|weight_scale|absmax|quant_map|SCB)$|^scaled_fp8$")),
)  # fmt: skip
"""What it is, the remedy, and names that show it."""

_ALONE = (
    ("a denoiser of FLUX", re.compile(r"double_blocks\.\d")),
    ("a denoiser of Stable Diffusion 3", re.compile(r"joint_blocks\.\d")),
    ("a denoiser", re.compile(r"(diffusion_model\.)?(input_blocks|down_blocks|transformer_blocks)\.\d")),
    ("an autoencoder", re.compile(r"(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|layers|\d)")),
    ("a text encoder", re.compile(r"(\w+\.)*(text_model|encoder\.block|transformer\.resblocks|shared)\.")),
)

_OTHERS = (
    ("a FLUX", re.compile(r"model\.diffusion_model\.double_blocks\.")),
    ("a Stable Diffusion 3", re.compile(r"model\.diffusion_model\.joint_blocks\.")),
    ("the refiner of Stable Diffusion XL", re.compile(r"conditioner\.embedders\.0\.model\.")),
    ("a Playground 2.5", re.compile(r"edm_mean$")),
)


def _remedy(said: str) -> str:
    if said == "an autoencoder":
        return "give it as protect --against, or give a whole checkpoint"
    return _FOLDER
