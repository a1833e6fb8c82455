"""One immunization from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unlikeness.checkpoints import steps_done
from unlikeness.diffusion.devices import aside, training_precision
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.lora import adaptable_copy, add_lora, merged_copy
from unlikeness.eight_bit import check_eight_bit
from unlikeness.errors import UsageError
from unlikeness.immunize import Defence, create
from unlikeness.immunize.attackers import every_prompt
from unlikeness.immunize.data import draw_general, protected_subjects
from unlikeness.immunize.l2p import L2P
from unlikeness.immunize.outputs import watermark_digest
from unlikeness.immunize.preservation import Preservation
from unlikeness.immunize.subject_list import check_outputs
from unlikeness.progress import Progress
from unlikeness.settings import named
from unlikeness.subjects import Subject
from unlikeness.training import adamw, identity_of, train, trapezoid

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["engine", "immunize"]

Engine = TypeVar("Engine", bound=L2P)

EVERY = 100
"""Outer steps between two checkpoints, up to the end of an attack."""


def immunize(
    model: TextToImage,
    subjects: Sequence[Subject],
    method: str | Defence = "divert",
    settings: ImmunizeSettings | Mapping[str, object] | None = None,
    *,
    original: TextToImage | None = None,
    prompts: Sequence[str] = (),
    priors: Mapping[str, Posterior] | None = None,
    general: Posterior | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    after: Callable[[int, float], None] | None = None,
) -> TextToImage:
    """A copy of `model` from which the subjects are hard to learn; `model` itself is never changed.

    With the setting `rank` the change is an adapter of the copy's denoiser, which may share its weights with
    `model`. Saving adds it to the weights.

    Args:
        subjects: the subjects to protect, with the identifiers that simulated attackers use.
        method: a name from `names()`, or a method made by `create`.
        settings: for a name: its settings object, or values by field name.
        original: φ, which draws the class pictures and predicts what must stay; None: `model` itself.
            Another one where `model` has been immunized before.
        prompts: prompts whose pictures the released model must still draw as before. Needed with
            preserve_weight, unless preserve_class is set too.
        priors: class pictures by class noun, to share between runs; drawn now if not given.
        general: a picture for each of `prompts` (`data.draw_general`); drawn now if not given.
        checkpoint: file from which an interrupted run goes on; on a CPU it ends as an uninterrupted one.
            A finished run goes on with more outer steps, unless `fall` or `unprotected_from` depend on their
            number.
        after: called with (outer steps done, protective loss) after each.

    Raises:
        UsageError: an unknown method or setting, or a wrong value; no subject; preservation without prompts;
            protective outputs that do not fit the subjects (`subject_list.check_outputs`).
        UnlikenessError: the training diverged.
    """
    defence = create(method, settings) if isinstance(method, str) else method
    s = defence.settings
    if s.eight_bit_adam:
        check_eight_bit(model.device)
    if s.preserve_weight and not (prompts or s.preserve_class):
        raise UsageError(
            f"{named('preserve_weight')} needs prompts, of what the model must still draw as before, or "
            f"{named('preserve_class')} above 0"
        )
    check_outputs(s, subjects)
    original = original or model
    identity = _identity(defence, model, original, subjects, prompts)
    if checkpoint is not None:
        done = steps_done(checkpoint, identity_of(s.seed, identity))
        if done > s.outer_steps:
            raise UsageError(
                f"the checkpoint {checkpoint} has {done} outer steps already, more than the {s.outer_steps} "
                f"requested; raise {named('outer_steps')}, or give another checkpoint"
            )
    reads = s.attack_text_encoder > 0
    if s.shares_weights:
        working = adaptable_copy(model)
    else:
        working = merged_copy(model, conditioner=reads)
        working.widen(conditioner=reads)
    if s.rank:
        add_lora(working, rank=s.rank, seed=s.seed, group=s.train)
    if s.checkpointing:
        working.denoiser.enable_gradient_checkpointing()
        working.denoiser.train()
    loop = engine(
        working, original, defence, subjects, prompts, priors=priors, general=general, progress=progress,
        l2p=getattr(defence, "loop", L2P),  # an experiment's method may have a loop of its own
    )  # fmt: skip
    texts = [None, *every_prompt(subjects, s), *(one.class_prompt for one in subjects)]
    for reader in (original,) if reads else (original, working):
        reader.condition([*texts, *(prompts if s.uses_prompts else ())])  # kept: nothing encodes later
    with aside(model), aside(original):
        train(
            loop,
            steps=s.outer_steps,
            optimizer=adamw(
                loop.theta, lr=s.rate, weight_decay=s.weight_decay, eight_bit=s.eight_bit_adam
            ),
            parameters=loop.theta,
            seed=s.seed,
            clip=s.clip or None,
            schedule=trapezoid(s.outer_steps, fall=s.fall) if s.fall else None,
            checkpoint=checkpoint,
            every=EVERY,
            whole=s.episode,  # a resumed run begins where an uninterrupted one begins a new attack
            settings=identity,
            progress=progress,
            description="immunizing",
            after=after,
        )
    released: TextToImage = loop.finish()
    released.conditioner = model.conditioner  # attackers had one of their own
    return released


def engine(
    working: TextToImage,
    original: TextToImage,
    defence: Defence,
    subjects: Sequence[Subject],
    prompts: Sequence[str] = (),
    *,
    l2p: type[Engine],
    priors: Mapping[str, Posterior] | None = None,
    general: Posterior | None = None,
    progress: Progress | None = None,
) -> Engine:
    """The loop of `immunize`, with everything drawn and encoded. It trains `working` in place."""
    s = defence.settings
    protected = protected_subjects(original, subjects, s, priors=priors, progress=progress)
    preservation = None
    if s.preserve_weight:
        if not s.uses_prompts:
            prompts, general = (), None  # no picture of theirs would be used
        if general is None and prompts:
            general = draw_general(
                original, prompts, seed=s.class_seed + 500_000, steps=s.class_steps, progress=progress
            )
        precision = training_precision(s.precision, working.device)
        preservation = Preservation(general, prompts, s, protected, precision)
    defence.prepare(original, protected, progress)
    return l2p(working, original, defence, protected, preservation=preservation)


def _identity(
    defence: Defence, model: TextToImage, original: TextToImage, subjects: Sequence[Subject],
    prompts: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """What decides the result, and so which checkpoint belongs to this run."""
    s = defence.settings
    identity: dict[str, Any] = {
        **asdict(s),
        "method": type(defence).__name__,
        "model": fingerprint(model),
        "original": fingerprint(original),
        "subjects": [[one.digest, one.instance_prompt] for one in subjects],
        "prompts": list(prompts) if s.uses_prompts else [],
    }
    for name in ("rank", "eight_bit_adam"):
        if not identity[name]:
            del identity[name]  # as it was before there was such a setting
    if marked := watermark_digest(s):
        identity["pattern"] = marked  # wherever its file lies
    if not s.fall and not s.unprotected_from and s.outer_steps % s.episode == 0:
        del identity["outer_steps"]  # a longer run begins with the same steps, and may go on from this one
    return identity
