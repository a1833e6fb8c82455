"""One immunization from folders to a folder: what `unlikeness immunize` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness import locks
from unlikeness.diffusion import hub
from unlikeness.diffusion.adapters import Added
from unlikeness.diffusion.devices import check_device, check_dtype
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.extras import check_extra
from unlikeness.immunize import Defence, create, record, settings_type
from unlikeness.immunize.settings import OF_ATTACKS, OF_LOW_RANK
from unlikeness.immunize.subject_list import Listed, check_outputs, listed, load, own_outputs
from unlikeness.paths import check_exists, check_output, check_place
from unlikeness.pictures.finding import check_pictures
from unlikeness.presets import preset_values, which_preset
from unlikeness.settings import build, current_names, named

if TYPE_CHECKING:
    import torch

    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.cost import Estimate
    from unlikeness.immunize.settings import ImmunizeSettings
    from unlikeness.progress import Progress
    from unlikeness.subjects import Subject

__all__ = ["Job"]

Tell = Callable[[str], None]

_MUCH = 0.1
"""Share of a change that rounding may undo without a warning."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The command line's values: see `cli.immunize`.

    add_to: instead of model, one that was immunized before. original: the model before all immunizations, as
    the reference instead. prediction, model_config: of a single file (`TextToImage.from_pretrained`). added:
    what becomes part of the model, and of the original, before the work.
    single_file: write the model as the single file that it came as. images with class_noun, or subjects (see
    `subject_list`). values: settings, which override those of the preset. dtype: of the files, "auto" for
    that of the model's own. checkpoint: None puts it beside the output and removes it at the end.
    """

    output: Path
    model: str | None = None
    add_to: Path | None = None
    original: str | None = None
    method: str = "divert"
    images: Path | None = None
    class_noun: str | None = None
    identifier: str = "sks"
    subjects: Path | None = None
    preset: str = "auto"
    values: Mapping[str, object] = field(default_factory=dict)
    prompts: Path | None = None
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    prediction: str | None = None
    model_config: str | None = None
    single_file: bool = False
    added: Added = field(default_factory=Added)

    def run(self, *, report: Tell | None = None, progress: Progress | None = None) -> Path:
        """Immunize, and write the folder; returns it. An interrupted run goes on when it is run again.

        UsageError for wrong values, where possible before a model is loaded; UnlikenessError if something
        cannot be read or written, or the training diverges.
        """
        tell = report or _silent
        named, prompts = self._check()  # torch has not been imported before this
        with locks.beside(self.output), locks.beside(self._checkpoint, "--checkpoint"):
            self._run(named, prompts, tell, progress)
        return self.output

    def _run(
        self, named: Sequence[Listed], prompts: list[str], tell: Tell, progress: Progress | None
    ) -> None:
        from unlikeness.immunize.release import save
        from unlikeness.immunize.run import immunize

        ready = self._open(named, tell)
        run: dict[str, Any] = {"original": ready.original, "prompts": prompts}
        # The record needs a dry run, which refuses wrong values before anything is drawn.
        made = record.record(
            self.method, ready.defence, ready.subjects, ready.model, called=self._called,
            earlier=ready.earlier, added=self.added, **run,
        )  # fmt: skip
        began, done = time.perf_counter(), [ready.defence.settings.outer_steps + 1]
        released = immunize(
            ready.model, ready.subjects, ready.defence, **run, checkpoint=self._checkpoint, progress=progress,
            after=lambda steps, _: done.append(steps),
        )  # fmt: skip
        made = record.ended(made, time.perf_counter() - began, min(done) - 1)
        lost = save(ready.model, released, self.output, made, dtype=self._dtype, single_file=self.single_file)
        if lost > _MUCH:
            tell(
                f"rounding to the files' precision undoes {lost:.0%} of the change; --dtype float32 keeps it"
            )
        if self.checkpoint is None:
            self._checkpoint.unlink(missing_ok=True)

    def estimate(self, *, report: Tell | None = None) -> Estimate:
        """The cost of `run`; nothing is written. Refuses what `run` refuses.

        report: it gets the memory and a rough time of the run first, from the configurations, before weights
        are loaded. UnlikenessError if that is more than the machine has.
        """
        named, prompts = self._check()
        tell = report or _silent

        from unlikeness.immunize.cost import estimate

        self._fits(named, prompts, tell)
        ready = self._open(named, tell)
        return estimate(ready.model, ready.defence, ready.subjects, prompts, original=ready.original)

    @property
    def _called(self) -> str:
        return str(self.add_to) if self.add_to is not None else (self.model or "toybox")

    @property
    def _checkpoint(self) -> Path:
        output = self.output.resolve()
        return self.checkpoint or output.with_name(f"{output.name}.checkpoint.safetensors")

    @property
    def _dtype(self) -> str | None:
        return None if self.dtype == "auto" else self.dtype

    def _check(self) -> tuple[list[Listed], list[str]]:
        """The subjects' list and the further prompts. Refuses what can be refused without torch."""
        subjects = self._listed()
        settings = self._settings(subjects, {})
        if settings.eight_bit_adam:
            check_extra("eight-bit", f"{named('eight_bit_adam')}=true")
        prompts = [] if self.prompts is None else _lines(self.prompts)
        weight = settings.preserve_weight
        if weight and not prompts and not settings.preserve_class:
            raise UsageError(
                f"{named('preserve_weight')} needs --prompts FILE, of what the model must still draw as "
                f"before, or {named('preserve_class')} above 0"
            )
        if prompts and not weight:
            raise UsageError(
                f"--prompts {self.prompts} has no effect without --set preserve_weight=..., such as 1"
            )
        if prompts and settings.preserve_class == 1:
            raise UsageError(f"--prompts {self.prompts} has no effect with preserve_class=1; leave one out")
        which_preset(self.preset, 0)  # whether there is such a preset
        check_device(self.device)
        check_dtype(self.dtype)
        check_output(self.output, self.checkpoint)
        check_place(self._checkpoint, "--output" if self.checkpoint is None else "--checkpoint")
        if self.add_to is not None:
            if self.model is not None:
                raise UsageError("--model and --add-to both name the model; give one of them")
            if record.read(self.add_to) is None:
                raise UsageError(
                    f"{self.add_to} has no {record.FILE}, so that nothing can be added to it; give --model"
                )
        hub.check_name(self._called, prediction=self.prediction, config=self.model_config)
        if self.single_file and self.dtype != "auto":
            raise UsageError("--single-file keeps the precision of the file; leave --dtype out")
        if self.single_file and not hub.given(self._called, "", ""):
            raise UsageError(f"--single-file needs a single file, and {self._called} is none; leave it out")
        if self.original is not None:
            hub.check_name(self.original)
        for one in subjects:
            check_pictures(one.images)
        pattern = str(getattr(settings, "pattern", ""))
        check_exists(Path(pattern) if pattern else None, "--pattern")
        return subjects, prompts

    def _fits(self, named: Sequence[Listed], prompts: Sequence[str], tell: Tell) -> None:
        """Report memory and time of a run. See `estimate`."""
        from unlikeness.diffusion.devices import pick_device
        from unlikeness.diffusion.opening import outline
        from unlikeness.immunize.cost import check_memory, check_time, memory

        device = pick_device(self.device)
        given = hub.given(self._called, self.prediction, self.model_config)
        bare = outline(self._called, dtype=_held_in(self._settings(named, {}), device), **given)
        preset = preset_values("immunize", self.preset, bare.resolution, self.method)
        defence = create(self.method, self._settings(named, preset))
        tell(check_memory(memory(bare, defence), self._called, device))
        subjects = load(named, size=bare.resolution, report=_silent)
        tell(check_time(bare, defence, subjects, prompts, device))
        tell("a probe will now load the model")

    def _open(self, named: Sequence[Listed], tell: Tell) -> _Ready:
        """The models, the method and the pictures; warns of what may weaken a protection."""
        from unlikeness.diffusion.devices import pick_device, pick_dtype
        from unlikeness.diffusion.single_file.writing import check_layout
        from unlikeness.immunize.attackers import attacks_on_each

        device = pick_device(self.device)
        pick_dtype(self._dtype, device)
        held = _held_in(self._settings(named, {}), device)
        model = self._opened(self._called, device, held)
        if model.single is not None:
            tell(model.single.line)
            if self.single_file:
                check_layout(model.single)
        elif self.single_file:
            raise UsageError(f"--single-file needs a single file, and {self._called} is none; leave it out")
        preset = preset_values("immunize", self.preset, model.resolution, self.method)
        defence = create(self.method, self._settings(named, preset))
        for noun, where in self._nouns(named, defence.settings).items():
            if told := model.conditioner.check_noun(noun, where):
                tell(told)
        original = None
        if self.original is not None:
            original = self._opened(self.original, device, held)
            if not _alike(original, model):
                raise UsageError(
                    f"--original {self.original} is of another size or kind; give the model's own original"
                )
        subjects = load(named, size=model.resolution, report=tell)
        attacked = attacks_on_each(defence.settings, len(subjects))
        if 0 in attacked:
            tell(
                f"{attacked.count(0)} of {len(subjects)} subjects are in no simulated attack, and have only "
                f"the others' protection; raise outer_steps ({defence.settings.outer_steps})"
            )
        earlier = record.read(model.source)
        for line in record.missing(earlier or {}, subjects):
            tell(line)
        return _Ready(model, original, defence, subjects, earlier)

    def _opened(self, name: str, device: torch.device, dtype: str) -> TextToImage:
        """A model, with what was given for single files, and what is added."""
        from unlikeness.diffusion.model import TextToImage

        model = TextToImage.from_pretrained(
            name, device=device, dtype=dtype, **hub.given(name, self.prediction, self.model_config)
        )
        whole = self.added.to(model)
        if self.single_file and whole.conditioner is not model.conditioner:
            raise UsageError(
                "--single-file changes the denoiser alone, and --lora or --embedding changes a text encoder; "
                "leave one of them out"
            )
        return whole

    def _settings(self, named: Sequence[Listed], further: Mapping[str, object]) -> ImmunizeSettings:
        """The method's settings alone, without torch."""
        kind = settings_type(self.method)
        values = current_names(kind, self.values)
        settings = build(kind, own_outputs(named, {**further, **values}, kind))
        check_outputs(settings, named)
        _check_effects(settings, values)
        return settings

    def _nouns(self, named: Sequence[Listed], settings: ImmunizeSettings) -> dict[str, str]:
        """For each class noun, where it was given."""
        nouns: dict[str, str] = {}
        for i, one in enumerate(named, 1):
            where = "--class-noun" if self.subjects is None else f"{self.subjects}, subject {i}: class noun"
            nouns.setdefault(one.class_noun, where)
        for noun in filter(None, getattr(settings, "target_noun", ())):
            nouns.setdefault(noun, "target_noun")
        return nouns

    def _listed(self) -> list[Listed]:
        if self.subjects is not None:
            if self.images is not None or self.class_noun is not None:
                raise UsageError("--subjects stands alone; give it, or --images and --class-noun")
            return listed(self.subjects, identifier=self.identifier)
        if self.images is None or self.class_noun is None:
            raise UsageError("no subject to protect; give --images and --class-noun, or --subjects")
        return [Listed(self.images, self.class_noun.strip(), self.identifier.strip())]


@dataclass(frozen=True)
class _Ready:
    model: TextToImage
    original: TextToImage | None
    defence: Defence
    subjects: list[Subject]
    earlier: dict[str, Any] | None


def _check_effects(settings: ImmunizeSettings, values: Mapping[str, object]) -> None:
    """UsageError for a setting of simulated attacks, or of low-rank ones, where there are none."""
    for names, has, remedy in (
        (OF_ATTACKS, settings.inner_steps, f"{named('inner_steps')} above 0"),
        (OF_LOW_RANK, settings.attack_low_rank, f"{named('attack_low_rank')} above 0"),
        (
            ("attack_text_encoder",), not settings.shares_weights,
            f"{named('attack_low_rank')} below 1 and {named('attack_ranks')}, or leave it out",
        ),
    ):
        for name in names:
            if name in values and not has:
                raise UsageError(
                    f"{named(name)} has no effect without simulated attacks of its kind; give {remedy}"
                )


def _held_in(settings: ImmunizeSettings, device: torch.device) -> str:
    """The precision in which a run holds the model: full, unless it trains updates beside it in bfloat16."""
    from unlikeness.diffusion.devices import training_precision

    half = settings.shares_weights and device.type == "cuda"
    return training_precision(settings.precision, device) if half else "float32"


def _alike(one: TextToImage, other: TextToImage) -> bool:
    """Whether one could have been trained from the other: the same weights, latents and prediction type."""
    form = [{name: p.shape for name, p in model.denoiser.named_parameters()} for model in (one, other)]
    return (
        form[0] == form[1]
        and one.latent_shape == other.latent_shape
        and one.schedule.prediction_type == other.schedule.prediction_type
    )


def _lines(path: Path) -> list[str]:
    """A prompt a line, without empty lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; give a file with a prompt a line") from error
    except (OSError, ValueError) as error:
        raise UnlikenessError(f"{path} cannot be read ({error}); give a text file in UTF-8") from error
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"{path} holds no prompt; write one on each line")
    return prompts


def _silent(_: str) -> None:
    return
