"""`unlikeness protect`: pictures in, protected pictures out, originals never touched."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlikeness.cli.options import (
    Device,
    Dtype,
    Embeddings,
    Loras,
    ModelConfig,
    Prediction,
    Quiet,
    Set,
    give,
    how,
    run,
)
from unlikeness.pictures.limits import MAX_PIXELS

if TYPE_CHECKING:
    from unlikeness.diffusion import TextToImage
    from unlikeness.diffusion.adapters import Added
    from unlikeness.protect.base import Perturber
    from unlikeness.protect.files.folder import Outcome
    from unlikeness.protect.files.survey import Survey
    from unlikeness.protect.settings import ProtectSettings
    from unlikeness.protect.surrogates import Surrogates

__all__ = ["protect"]


class At(StrEnum):
    """The values of `--at`."""

    fit = "fit"
    tiles = "tiles"
    both = "both"


def protect(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Pictures, and folders of pictures with all their subfolders.", metavar="PATHS"),
    ],
    output: Annotated[Path, give("Folder for the protected pictures.", "--output", "-o")],
    mask: Annotated[
        Path | None,
        give(
            "Grey picture of where to protect (white) and where not (black), or a folder of such masks under "
            "the pictures' names."
        ),
    ] = None,
    c2pa: Annotated[
        Path | None,
        give(
            "Certificate with its chain (PEM): sign every copy with a content credential that says that "
            "training and data mining are not allowed."
        ),
    ] = None,
    c2pa_key: Annotated[Path | None, give("Private key of --c2pa (PEM, without a password).")] = None,
    method: Annotated[
        str | None,
        how(
            "rid (one pass of a network), encoder, photoguard, dct, universal (against autoencoders), advdm, "
            "sds, ace (against a model), aspl, simac, metacloak, caat (all pictures together, as one "
            "subject's; slow), or noise (the control). Default: rid, encoder with --against, or advdm with "
            "--model."
        ),
    ] = None,
    budget: Annotated[float, how("Largest change of a colour value [n/255].")] = 8.0,
    psnr: Annotated[
        float | None,
        how(
            "Weaken the change of each picture until its PSNR is this high [dB], before rounding. A change "
            "of 40 dB is hardly visible. encoder keeps to it from its first step on (default: 36).",
            min=10,
            max=100,
        ),
    ] = None,
    at: Annotated[
        At,
        how(
            "Size to compute at. fit: the size that a trainer sees. tiles: the picture's own size (slow). "
            "both: half of each."
        ),
    ] = At.fit,
    weights: Annotated[
        str | None,
        how(
            "Network of rid: a shipped name, a hub name, or a file of `train-protector`, of `export` or of "
            "the method's authors."
        ),
    ] = None,
    model: Annotated[
        str | None,
        how(
            "Model that gradient methods compute against: a folder, a single file, a hub name or toybox. "
            "Default: toybox, "
            "a toy that people do not use."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        how(
            "Autoencoder that encoder, photoguard, dct and universal compute against, instead of a model: a "
            "name (see unlikeness surrogates), a folder or a file. For several, give it again or put commas "
            "between.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        how(
            "Another published method, as settings: photoguard, mist or pid (of encoder, by its own steps), "
            "fsmg (aspl), released (simac), mist-loss (ace)."
        ),
    ] = None,
    prediction: Prediction = None,
    model_config: ModelConfig = None,
    lora: Loras = None,
    embedding: Embeddings = None,
    steps: Annotated[int | None, how("Gradient steps. Default: the method's own.")] = None,
    set_: Set = None,
    seed: Annotated[int, how("Random seed.")] = 0,
    dry_run: Annotated[bool, run("List what would be done; write nothing.", "--dry-run")] = False,
    max_pixels: Annotated[int, run("Skip larger pictures.", min=1)] = MAX_PIXELS,
    batch_size: Annotated[int | None, run("Tiles in a batch. Default: chosen for the device.", min=1)] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quiet: Quiet = False,
) -> None:
    """Add a faint perturbation to pictures, so that a model learns the subject less well from them.

    The perturbation works, as far as it does, against the models that it was computed with. The last line
    names them. Without --against, --model and --weights a network computes it, which was trained against the
    distilled autoencoders of FLUX.2 and Sana; Stable Diffusion's was not among them. No perturbation is a
    lock: measure what it is worth.

    Protected pictures keep their names, sizes, formats and metadata. OUTPUT/manifest.jsonl says what was done
    to each file. Repeat the command to go on after a stop. The exit status is 1 if a file was skipped, or was
    only copied.
    """
    from unlikeness import locks
    from unlikeness.diffusion.devices import check_device, check_dtype
    from unlikeness.errors import UsageError
    from unlikeness.extras import check_extra
    from unlikeness.protect import registry
    from unlikeness.protect.files.targets import find_targets
    from unlikeness.protect.published import method_of_preset, preset_of
    from unlikeness.protect.rid.settings import check_weights
    from unlikeness.protect.settings import EncoderSettings, ResolutionMode, RidSettings
    from unlikeness.settings import build, pairs

    # Validate before importing torch, which takes seconds. rid never imports it on the CPU.
    if model is not None and against is not None:
        raise UsageError("--model and --against both say what to compute against; give one of them")
    method = method or (method_of_preset(preset) if preset else None)
    method = method or ("encoder" if against else "advdm" if model else "rid")
    needs_model = registry.needs_model(method)
    for flag, given in (("--model", model), ("--against", against)):
        if given is not None and not needs_model:
            raise UsageError(
                f"{flag} is for methods that follow a gradient; {method} needs none: leave it out, or give "
                "another --method"
            )
    for flag, value in (("--prediction", prediction), ("--model-config", model_config)):
        if value is not None and model is None:
            raise UsageError(f"{flag} is for a model in one file; leave it out, or name it with --model")
    for flag, values_of in (("--lora", lora), ("--embedding", embedding)):
        if values_of and model is None:
            raise UsageError(f"{flag} is added to a model; leave it out, or name the model with --model")
    kind = registry.settings_type(method)
    own = issubclass(kind, EncoderSettings)
    values = pairs(
        "--set", set_,
        {"budget": budget, "steps": steps, "weights": weights, "psnr": psnr if own else None},
    )  # fmt: skip
    if preset is not None:
        values = {**preset_of(method, preset), **values}
    if dtype != "auto" and not needs_model:
        raise UsageError(f"--dtype is the precision of a model, and {method} uses none; leave it out")
    check_device(device)
    check_dtype(dtype)
    settings = build(kind, values)
    sized = build(ResolutionMode, {"mode": at.value})
    if needs_model:
        check_extra("models", f"--method {method}")
    encoders: list[str] = []
    added: Added | None = None
    if against is not None:
        from unlikeness.autoencoders.names import expand

        encoders = expand(against)
    if needs_model and not encoders:
        from unlikeness.diffusion import hub
        from unlikeness.diffusion.adapters import Added

        added = Added.parse(lora, embedding)
        told = hub.check_name(model or "toybox", prediction=prediction, config=model_config)
        if told and not quiet:
            typer.echo(told, err=True)
    if isinstance(settings, RidSettings):
        check_weights(settings.weights)
    credentials = None
    if c2pa is not None or c2pa_key is not None:
        if c2pa is None or c2pa_key is None:
            raise UsageError("--c2pa and --c2pa-key belong together: give the certificate and its key")
        from unlikeness.pictures.credentials import Credentials

        credentials = Credentials(c2pa, c2pa_key)
    if not dry_run:
        locks.check_free(output)
    targets = find_targets(paths, output)
    masks: Mapping[str, Path] = {}
    if mask is not None:
        from unlikeness.protect.files.masks import find_masks

        masks = find_masks(mask, targets)

    if encoders:
        from unlikeness.autoencoders.fetching import locate

        for encoder in encoders:  # what is missing is fetched, or named, before torch is imported
            locate(encoder)

    from unlikeness.pictures import guard

    guard.prepare()  # it starts while the rest is imported
    from unlikeness.progress import on_stderr
    from unlikeness.protect.against import against_of
    from unlikeness.protect.files import folder
    from unlikeness.protect.files.survey import survey
    from unlikeness.protect.methods.rid import Rid
    from unlikeness.protect.tiling import batches

    loaded: TextToImage | Surrogates | None = None
    encoders_of: Surrogates | None = None
    name = None
    if needs_model:
        from unlikeness.protect.surrogates import Surrogates

        if against is not None:
            encoders_of = Surrogates.named(against, device=device, dtype=dtype)
            name = ", ".join(one.name for one in encoders_of)
        else:
            name = model or "toybox"
            if own and not (lora or embedding) and prediction is None and model_config is None:
                encoders_of = Surrogates.apart(name, device=device, dtype=dtype)
        loaded = encoders_of
        if loaded is None:
            from unlikeness.diffusion import TextToImage

            loaded = TextToImage.from_pretrained(
                str(name), device=device, dtype=dtype, prediction=prediction, model_config=model_config,
                carried=False,
            )  # fmt: skip
            loaded = loaded if added is None else added.to(loaded)

    def make(settings: ProtectSettings) -> Perturber:
        if method == "rid" and isinstance(settings, RidSettings):
            return Rid(None, settings, device=device)
        return registry.create(method, loaded, settings)

    protection = make(settings)
    size = batch_size or batches.default_batch_size(
        protection.resolution, getattr(loaded or protection, "device", "cpu")
    )
    with on_stderr(quiet=quiet) as progress:
        if dry_run:
            seen = survey(
                paths, output, make, settings,
                at=sized, masks=masks, max_pixels=max_pixels, batch_size=size, progress=progress,
            )  # fmt: skip
        else:
            outcome = folder.protect_folder(
                paths, output, protection,
                method=method, model=name, added=added.record() if added else None, seed=seed, at=sized,
                psnr=psnr, mask=mask, max_pixels=max_pixels, batch_size=size, credentials=credentials,
                progress=progress,
            )  # fmt: skip
    said = against_of(protection).sentence
    if dry_run:
        _show_survey(seen, said)
        return
    if encoders_of is not None:
        new = {entry.path for entry in outcome.protected}
        sample = [(target.source, target.path) for target in targets if target.name in new]
        _show_sample(sample, encoders_of, seed, max_pixels)
    _show_outcome(outcome, output, said)
    if not outcome.complete:
        raise typer.Exit(1)


def _counted(n: int, noun: str) -> str:
    """1 tile, 2 tiles."""
    return f"{n} {noun}{'s' * (n != 1)}"


def _show_survey(seen: Survey, against: str) -> None:
    from unlikeness.progress import format_seconds

    for file in seen.files:
        if file.size is None:
            typer.echo(f"skip  {file.reason}")
        else:
            copied = "" if file.unchanged is None else f"  unchanged: {file.unchanged}"
            size = f"{file.size[0]} × {file.size[1]} px"
            typer.echo(f"{file.name}  {size}  {_counted(file.tiles, 'tile')}{copied}")
    if seen.passed_over:
        typer.echo(seen.passed_over)
    usable = sum(file.size is not None for file in seen.files)
    copies = sum(file.unchanged is not None for file in seen.files)
    time = format_seconds(seen.seconds)
    typer.echo(
        f"{_counted(usable, 'picture')}, {_counted(seen.tiles, 'tile')}, about {time}; "
        + (f"{copies} of them will be unchanged (copies, not protected); " if copies else "")
        + f"{len(seen.files) - usable} to skip; nothing was written; {against}"
    )


def _show_sample(pairs: list[tuple[Path, Path]], encoders: Surrogates, seed: int, max_pixels: int) -> None:
    from unlikeness.errors import UnlikenessError
    from unlikeness.measure.latents import sample_sentences

    size = max(encoders.resolution // 64, 1) * 64
    try:
        found = sample_sentences(pairs, encoders.by_title, size=size, seed=seed, max_pixels=max_pixels)
    except UnlikenessError as error:
        typer.echo(f"what the autoencoders see of the copies was not measured: {error}", err=True)
    else:
        for sentence in found:
            typer.echo(f"The protection {sentence}.")


def _show_outcome(outcome: Outcome, output: Path, against: str) -> None:
    from unlikeness.errors import one_line
    from unlikeness.protect.files.manifest import note_lines

    unsupported = set(outcome.unsupported)
    for entry in outcome.skipped:
        if entry.path not in unsupported:
            typer.echo(f"skipped {entry.reason}", err=True)
    if outcome.passed_over:
        typer.echo(outcome.passed_over, err=True)
    for entry in outcome.unchanged:
        typer.echo(one_line(f"unchanged {entry.path}: {entry.note}"), err=True)
    for line in note_lines(outcome.protected):
        typer.echo(one_line(line), err=True)
    parts = [f"{len(outcome.protected)} protected"]
    if not (outcome.protected or outcome.before):
        parts = ["nothing was protected"]
    if outcome.unchanged:
        parts.append(f"{len(outcome.unchanged)} unchanged (copies, not protected)")
    if outcome.before:
        parts.append(f"{len(outcome.before)} done before")
    if outcome.skipped:
        parts.append(f"{len(outcome.skipped)} skipped")
    exact = [entry.linf for entry in outcome.protected if entry.lossless and entry.linf is not None]
    lossy = [entry.linf for entry in outcome.protected if not entry.lossless and entry.linf is not None]
    if exact:
        parts.append(f"largest change {max(exact):.4g}/255")
    if lossy:
        parts.append(f"largest change in lossy formats {max(lossy):.4g}/255 (their own compression included)")
    typer.echo(f"{', '.join(parts)}; {output}; {against}")
