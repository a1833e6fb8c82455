"""One immunization from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.checkpoints import steps_done
from unlikeness.diffusion.devices import training_precision
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.lora import merged_copy
from unlikeness.errors import UsageError
from unlikeness.immunize.data import keep
from unlikeness.immunize.each import check_turns
from unlikeness.immunize.l2p import L2P
from unlikeness.immunize.outputs import mark_digest
from unlikeness.immunize.preservation import Preserve, draw_general
from unlikeness.immunize.registry import Defence, create
from unlikeness.progress import Progress
from unlikeness.subjects import Subject
from unlikeness.training import adamw, identity_of, train, trapezoid

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.model import TextToImage
    from unlikeness.immunize.settings import ImmunizeSettings

__all__ = ["immunize"]

EVERY = 100
"""Outer steps between two checkpoints, or the next whole number of attacks."""


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

    Args:
        subjects: whom to protect; their identifiers are those of the simulated attackers.
        method: a name from `names()`, or a method made by `create`.
        settings: for a name: its settings object, or values by field name.
        original: φ, which draws the class pictures and says what is to stay as it was; None: `model` itself.
            Another one where `model` has been immunized before.
        prompts: what the released model must still draw as before; needed where preserve_weight
            counts, unless preserve_class does too.
        priors: class pictures by class noun, to share between runs; drawn now if not given.
        general: a picture for each of `prompts` (`preserve.draw_general`); drawn now if not given.
        checkpoint: file that an interrupted run goes on from; on a CPU it ends as an uninterrupted one would.
            So does a finished run that is given more outer steps, unless `fall` or `bystanders_from` tie what
            is done to their number.
        after: called with (outer steps done, protective loss) after each.

    Raises:
        UsageError: an unknown method or setting, or a wrong value; no subject; preservation without prompts;
            notices that do not fit the subjects (`each.check_turns`).
        UnlikenessError: the training diverged.
    """
    defence = create(method, settings) if isinstance(method, str) else method
    s = defence.settings
    if s.preserve_weight and not (prompts or s.preserve_class):
        raise UsageError(
            "preserve_weight needs prompts, of what the model must still draw as before, or preserve_class "
            "above 0"
        )
    check_turns(s, subjects)
    original = original or model
    identity = _identity(defence, model, original, subjects, prompts)
    if checkpoint is not None:
        done = steps_done(checkpoint, identity_of(s.seed, identity))
        if done > s.outer_steps:
            raise UsageError(
                f"the checkpoint {checkpoint} has {done} outer steps already, more than the {s.outer_steps} "
                "asked for; raise outer_steps, or give another checkpoint"
            )
    kept = keep(original, subjects, s, priors=priors, progress=progress)
    working = merged_copy(model, conditioner=bool(s.text_encoder))
    working.widen(conditioner=bool(s.text_encoder))
    if s.checkpointing:
        working.denoiser.enable_gradient_checkpointing()
        working.denoiser.train()
    preserve = None
    if s.preserve_weight:
        if not s.uses_prompts:
            prompts, general = (), None  # no picture of theirs would be used
        if general is None and prompts:
            general = draw_general(
                original, prompts, seed=s.class_seed + 500_000, steps=s.class_steps, progress=progress
            )
        preserve = Preserve(general, prompts, s, kept, training_precision(s.precision, working.device))
    defence.prepare(original, kept, progress)
    l2p = L2P(working, original, defence, kept, preserve=preserve)
    every = -(-EVERY // s.episode) * s.episode  # a resumed run begins with a new attack, as it would have
    train(
        l2p,
        steps=s.outer_steps,
        optimizer=adamw(l2p.theta, lr=s.learning_rate, weight_decay=s.weight_decay),
        parameters=l2p.theta,
        seed=s.seed,
        clip=s.clip or None,
        schedule=trapezoid(s.outer_steps, fall=s.fall) if s.fall else None,
        checkpoint=checkpoint,
        every=every,
        settings=identity,
        progress=progress,
        description="immunizing",
        after=after,
    )
    released = l2p.finish()
    released.conditioner = model.conditioner  # attackers had one of their own
    return released


def _identity(
    defence: Defence, model: TextToImage, original: TextToImage, subjects: Sequence[Subject],
    prompts: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """What decides the result, and so which checkpoint is this run's."""
    s = defence.settings
    identity: dict[str, Any] = {
        **asdict(s),
        "method": type(defence).__name__,
        "model": fingerprint(model),
        "original": fingerprint(original),
        "subjects": [[one.digest, one.instance_prompt] for one in subjects],
        "prompts": list(prompts) if s.uses_prompts else [],
    }
    if marked := mark_digest(s):
        identity["pattern"] = marked  # wherever its file lies
    if not s.fall and not s.bystanders_from and s.outer_steps % s.episode == 0:
        del identity["outer_steps"]  # a longer run is the same as far as this one goes, and may go on from it
    return identity
