"""Options that several commands share, and the three groups of a command's help."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "GROUPS", "BatchSize", "ClassNoun", "Device", "Dtype", "Embeddings", "LearningRate", "Loras",
    "ModelConfig", "Overwrite", "Prediction", "Preset", "Quiet", "Seed", "Set", "Steps", "give", "how", "run",
]  # fmt: skip

GROUPS = ("What you give", "How", "Run")


def give(text: str, *names: str, **further: Any) -> Any:
    """An option for an input or an output. names: of the option, where they are not the parameter's."""
    return typer.Option(*names, help=text, rich_help_panel=GROUPS[0], **further)


def how(text: str, *names: str, **further: Any) -> Any:
    """An option for a method or one of its settings."""
    return typer.Option(*names, help=text, rich_help_panel=GROUPS[1], **further)


def run(text: str, *names: str, **further: Any) -> Any:
    """An option for the run: device, progress and the like."""
    return typer.Option(*names, help=text, rich_help_panel=GROUPS[2], **further)


ClassNoun = Annotated[str, give("Class noun of the subject (dog, person, ...).")]

Prediction = Annotated[
    str | None,
    give("What a single file predicts that does not say it: epsilon or v.", "--prediction"),
]
ModelConfig = Annotated[
    str | None,
    give(
        "Diffusers folder or hub name with what a single file lacks: configurations, tokenizers, text "
        "encoders, the autoencoder."
    ),
]

Loras = Annotated[
    list[str] | None,
    give(
        "LoRA to add to the model: a file, a folder or a hub name, with :STRENGTH behind it if not 1; can be "
        "given several times.",
        "--lora",
        metavar="FILE[:STRENGTH]",
    ),
]
Embeddings = Annotated[
    list[str] | None,
    give(
        "Textual Inversion file, whose word the prompts may use; can be given several times.",
        "--embedding",
        metavar="[WORD=]FILE",
    ),
]

Steps = Annotated[int | None, how("Optimizer steps.")]
LearningRate = Annotated[float | None, how("Learning rate of AdamW.")]
BatchSize = Annotated[int | None, how("Pictures in a batch.")]
Seed = Annotated[int | None, how("Random seed of the training.")]
Preset = Annotated[
    str, how("Preset for unset options: stable-diffusion or toybox (auto: chosen by the model's resolution).")
]
Set = Annotated[
    list[str] | None,
    how("Any other setting of the method; can be given several times.", "--set", metavar="NAME=VALUE"),
]

Device = Annotated[str, run("auto, cpu, mps, cuda or cuda:N.")]
Dtype = Annotated[str, run("Precision of the model: auto, float32, float16 or bfloat16.")]
Overwrite = Annotated[bool, run("Replace an existing result.", "--overwrite")]
Quiet = Annotated[bool, run("Show no progress.", "--quiet", "-q")]
