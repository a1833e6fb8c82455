"""Learning to protect, against the equations written out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.immunize import literal
from tests.tiny import encoder_of, tiny_model
from torch import Tensor

from unlikeness.autoencoders import Autoencoder
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families.stable_diffusion import ClipConditioner
from unlikeness.errors import UsageError
from unlikeness.immunize import create, immunize, names, run
from unlikeness.immunize.attackers import Attackers
from unlikeness.immunize.batch import Batch
from unlikeness.immunize.data import protected_subjects
from unlikeness.immunize.l2p import L2P
from unlikeness.immunize.preservation import Preservation
from unlikeness.seeds import step_generator
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 2, "class_images": 4, "class_steps": 2, "batch_size": 2,
    "attack_batch_size": 2, "learning_rate": 1e-3, "attack_learning_rate": 2e-3, "precision": "float32",
}  # fmt: skip

BACKDOOR: dict[str, Any] = {
    "protective_output": "target", "target_noun": "cat", "contexts": "", "output_pictures": 3,
    "retention_weight": 0.0, "class_weight": 0.7,
}  # fmt: skip
"""PersGuard along simulated attacks, where a prompt is always the attacker's own."""


def weights_of(model: TextToImage) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.denoiser.named_parameters()}


def moved(model: TextToImage, released: TextToImage) -> set[str]:
    """Names of the weights that differ."""
    after = weights_of(released)
    return {name for name, p in weights_of(model).items() if not torch.equal(p, after[name])}


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("method", "further"),
    [
        ("apdm", {}),
        ("apdm", {"beta": 10.0}),
        ("apdm", {"inner_steps": 0}),
        ("apdm", {"attack_stride": 3, "attack_depth": 6}),
        ("adversarial", {}),
        ("persguard", BACKDOOR),
        ("persguard", {**BACKDOOR, "attack_stride": 3, "attack_depth": 6}),
    ],
)
def test_a_run_is_the_equations_written_out(
    weights: Path, dog: Subject, prediction_type: str, method: str, further: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = tiny_model(weights, prediction_type, dtype="float64")
    settings = {**FEW, **further}
    watch = literal.Watch()
    prior = {"dog": protected_subjects(model, [dog], create("apdm", FEW).settings)[0].prior}
    with monkeypatch.context() as patch:
        watch.on(patch)
        released = immunize(model, [dog], method, settings, priors=prior)
    protective = {
        "apdm": lambda: literal.apdm(model, 2, settings.get("beta", 1.0)),
        "adversarial": lambda: literal.adversarial(model),
        "persguard": lambda: literal.persguard(model, settings["class_weight"]),
    }[method]()
    expected = literal.l2p(
        model, protective, watch.draws, outer_steps=2, inner_steps=settings["inner_steps"], batch=2,
        outer_lr=1e-3, inner_lr=2e-3, stride=settings.get("attack_stride", 1),
    )  # fmt: skip
    start = [p.detach() for p in model.denoiser.parameters()]
    for before, wanted, found in zip(start, expected, released.denoiser.parameters(), strict=True):
        assert not torch.equal(before, found)
        assert torch.allclose(found - before, wanted - before, rtol=1e-3, atol=1e-7)


def test_the_original_is_not_changed_and_the_result_is_frozen(exact: TextToImage, dog: Subject) -> None:
    before = weights_of(exact)
    released = immunize(exact, [dog], "apdm", FEW)
    assert all(torch.equal(p, before[name]) for name, p in weights_of(exact).items())
    assert not any(p.requires_grad or p.grad is not None for p in released.denoiser.parameters())
    assert released.autoencoder.network is exact.autoencoder.network
    assert encoder_of(released) is encoder_of(exact)


def test_a_deep_attack_moves_along_with_the_released_weights(exact: TextToImage, dog: Subject) -> None:
    defence = create("apdm", {**FEW, "attack_depth": 4})
    working = exact.copy()
    l2p = L2P(working, exact, defence, protected_subjects(exact, [dog], defence.settings))
    l2p(0, step_generator(0, 0))
    distance = [p.detach().clone() for p in working.denoiser.parameters()]
    with torch.no_grad():
        for theta in l2p.theta:
            theta.grad = None
            theta += 0.25
    starts: list[list[Tensor]] = []
    step = l2p.attacker.step

    def watched(generator: torch.Generator) -> Tensor:
        starts.append([p.detach().clone() for p in working.denoiser.parameters()])
        return step(generator)

    l2p.attacker.step = watched  # type: ignore[method-assign]
    l2p(1, step_generator(0, 1))
    for at, d, theta in zip(starts[0], distance, l2p.theta, strict=True):
        assert torch.allclose(at, d + theta)
    assert l2p.attacker.steps == 4
    l2p(2, step_generator(0, 2))
    assert l2p.attacker.steps == 2
    for at, theta in zip(starts[2], l2p.theta, strict=True):
        assert torch.equal(at, theta)


def test_a_gradient_may_come_before_an_attacks_first_step(exact: TextToImage, dog: Subject) -> None:
    """Of protected subjects alone: an unprotected one must be learnt, and each attack step teaches it."""
    further = {"attack_stride": 2, "attack_depth": 8, "attack_from_start": True, "unprotected_every": 2}
    defence = create("divert", {**FEW, **further, "contexts": "", "attack_text_encoder": 0.0})
    working = exact.copy()
    l2p = L2P(working, exact, defence, protected_subjects(exact, [dog], defence.settings))
    asked: list[tuple[bool, int]] = []
    protects = l2p._protects

    def watched(batch: Batch) -> float:
        there = [torch.equal(p, theta) for p, theta in zip(l2p.weights.attacked, l2p.theta, strict=True)]
        asked.append((all(there), l2p.attacker.steps))
        return protects(batch)

    l2p._protects = watched  # type: ignore[method-assign]
    defence.prepare(exact, l2p.subjects)
    for index in range(4):  # an attack on the dog, then one on an unprotected subject
        l2p(index, step_generator(0, index))
    assert asked[:4] == [(True, 0), (False, 2), (False, 4), (False, 6)]
    assert [steps for _, steps in asked[4:]] == [2, 4, 6, 8]


@pytest.mark.parametrize("method", names())
def test_neither_autoencoder_nor_text_encoder_is_needed_while_training(
    method: str, exact: TextToImage, dog: Subject, cat: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that both may wait on the CPU: what a step asks for was computed before the first one."""
    further: dict[str, Any] = {"preserve_weight": 1.0, "preserve_class": 0.5, "preserve_empty": 0.3}
    if method not in ("apdm", "adversarial", "imma"):
        further |= {"contexts": "{} x", "output_pictures": 1, "attack_text_encoder": 0.0, "attack_depth": 0}
        further |= {"target_noun": "mug"} if method == "notice" else {}
    further |= {"guidance": 2.0} if method == "divert" else {}
    further |= {"inner_steps": 1, "outer_steps": 6, "attack_identifiers": "zwx", "unprotected_every": 2}

    def refused(*_: object) -> Tensor:
        raise AssertionError("encoded while training")

    asked = []

    def absent(*_: object) -> AbstractContextManager[None]:
        asked.append(method)
        for kind, name in ((ClipConditioner, "encode"), (Autoencoder, "encode"), (Autoencoder, "decode")):
            monkeypatch.setattr(kind, name, refused)
        return nullcontext()

    monkeypatch.setattr(run, "aside", absent)
    immunize(exact, [dog, cat], method, {**FEW, **further}, prompts=["a cup", "a tree"])
    assert len(asked) == 2  # of the model and of the original


@pytest.mark.parametrize("train", ["all", "attention", "cross-attention"])
def test_what_stays_is_asked_of_the_released_weights_whatever_is_trained(
    exact: TextToImage, dog: Subject, train: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first outer step these are the original's, so that there is nothing to hold yet."""
    losses: list[float] = []
    ask = Preservation.__call__

    def watched(self: Preservation, *args: Any) -> Tensor:
        loss = ask(self, *args)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(Preservation, "__call__", watched)
    further = {"train": train, "preserve_weight": 1.0, "preserve_class": 1.0}
    released = immunize(exact, [dog], "apdm", {**FEW, **further})
    assert losses[0] == pytest.approx(0.0, abs=1e-12)
    assert losses[1] > 1e-9
    kinds = {"all": "", "attention": ".attn", "cross-attention": ".attn2."}
    assert all(kinds[train] in f".{name}" for name in moved(exact, released))


@pytest.mark.parametrize(
    ("method", "further"),
    [
        ("apdm", {}),
        ("apdm", {"attack_depth": 4}),
        ("apdm", {"attack_low_rank": 0.5, "attack_ranks": "2", "attack_identifiers": "zwx"}),
        ("apdm", {"unprotected_every": 2, "attack_depth": 4, "outer_steps": 8}),
        ("apdm", {"attack_text_encoder": 0.7}),
        ("persguard", {**BACKDOOR, "protective_output": "pattern,target", "target_noun": "mug"}),
        ("combined", {**BACKDOOR, "protective_output": "erasure", "target_noun": ""}),
        ("notice", {
            "target_noun": "mug", "attack_stride": 1, "attack_depth": 4, "outer_steps": 8,
            "attack_text_encoder": 0.5, "output_pictures": 2, "contexts": "a photo of {} a",
            "preserve_class": 1.0,
        }),
    ],
)  # fmt: skip
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    exact: TextToImage, dog: Subject, cat: Subject, method: str, further: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = {**FEW, "outer_steps": 6, "inner_steps": 1 if not further else 2, **further}
    monkeypatch.setattr("unlikeness.immunize.run.EVERY", 2)
    whole = immunize(exact, [dog, cat], method, settings)

    def interrupt(done: int, _: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        immunize(exact, [dog, cat], method, settings, checkpoint=checkpoint, after=interrupt)
    steps: list[int] = []
    resumed = immunize(
        exact, [dog, cat], method, settings, checkpoint=checkpoint, after=lambda n, _: steps.append(n)
    )
    assert steps[0] == 5
    assert not moved(whole, resumed)


def test_a_run_stopped_within_an_attack_resumes_at_its_beginning(
    exact: TextToImage, dog: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlikeness.training.PAUSE", 0.0)  # as if every step were slow
    settings, seen = {**FEW, "inner_steps": 1, "attack_depth": 3, "outer_steps": 8}, list[int]()

    def interrupt(done: int, _: float) -> None:
        seen.append(done)
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        immunize(exact, [dog], "apdm", settings, checkpoint=tmp_path / "state", after=interrupt)
    seen.append(0)
    resumed = immunize(
        exact, [dog], "apdm", settings, checkpoint=tmp_path / "state", after=lambda n, _: seen.append(n)
    )
    assert seen == [1, 2, 3, 4, 5, 0, 4, 5, 6, 7, 8]
    assert not moved(immunize(exact, [dog], "apdm", settings), resumed)


@pytest.mark.parametrize("further", [{}, {"attack_depth": 4}])
def test_a_finished_run_can_go_on(
    exact: TextToImage, dog: Subject, further: dict[str, Any], tmp_path: Path
) -> None:
    settings, checkpoint = {**FEW, **further}, tmp_path / "state.safetensors"
    whole = immunize(exact, [dog], "apdm", {**settings, "outer_steps": 4})
    immunize(exact, [dog], "apdm", {**settings, "outer_steps": 2}, checkpoint=checkpoint)
    longer = immunize(exact, [dog], "apdm", {**settings, "outer_steps": 4}, checkpoint=checkpoint)
    assert not moved(whole, longer)


@pytest.mark.parametrize("further", [{"attack_depth": 4}, {"fall": 0.5}])
def test_a_run_whose_end_is_its_own_cannot(
    exact: TextToImage, dog: Subject, further: dict[str, Any], tmp_path: Path
) -> None:
    settings, checkpoint = {**FEW, **further}, tmp_path / "state.safetensors"
    immunize(exact, [dog], "apdm", {**settings, "outer_steps": 3}, checkpoint=checkpoint)
    with pytest.raises(UsageError, match="belongs to another run"):
        immunize(exact, [dog], "apdm", {**settings, "outer_steps": 4}, checkpoint=checkpoint)


def test_a_checkpoint_that_will_not_do_is_told_before_anything_is_drawn(
    exact: TextToImage, dog: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, weights = tmp_path / "state.safetensors", tmp_path / "weights.safetensors"
    immunize(exact, [dog], "apdm", {**FEW, "outer_steps": 4}, checkpoint=checkpoint)
    save_file({"x": torch.zeros(1)}, weights)
    monkeypatch.setattr(TextToImage, "generate", None)
    for further, file, message in (
        ({"outer_steps": 2}, checkpoint, "has 4 outer steps already, more than the 2"),
        ({"outer_steps": 4, "seed": 1}, checkpoint, "belongs to another run"),
        ({"outer_steps": 4}, weights, "weights.safetensors is no checkpoint"),
    ):
        with pytest.raises(UsageError, match=message):
            immunize(exact, [dog], "apdm", {**FEW, **further}, checkpoint=file)


def test_what_is_released_recomputes_nothing(weights: Path, dog: Subject) -> None:
    released = immunize(tiny_model(weights), [dog], "apdm", {**FEW, "outer_steps": 1, "checkpointing": True})
    assert not released.denoiser.is_gradient_checkpointing


def test_cross_attention_alone_moves_if_asked(exact: TextToImage, dog: Subject) -> None:
    released = immunize(exact, [dog], "imma", {**FEW, "train": "cross-attention"})
    assert moved(exact, released) == {name for name in weights_of(exact) if ".attn2." in name}


def test_low_rank_attacks_leave_no_adapter_behind(exact: TextToImage, dog: Subject) -> None:
    settings = {**FEW, "attack_low_rank": 1.0, "attack_ranks": "2", "outer_steps": 3}
    released = immunize(exact, [dog], "apdm", settings)
    assert list(weights_of(released)) == list(weights_of(exact))
    assert moved(exact, released)
    assert not getattr(released.denoiser, "peft_config", None)


def test_attacks_are_drawn_from_all_that_is_named(exact: TextToImage, dog: Subject) -> None:
    choices = {"attack_identifiers": "zwx, t@t", "attack_prompts": ["a photo of {}", "{} here"]}
    choices["attack_rates"] = "1,0.5"
    settings = create("apdm", {**FEW, **choices, "attack_ranks": "2,4", "attack_low_rank": 0.5}).settings
    kept = protected_subjects(exact, [dog], settings)
    mixture = Attackers(exact, kept, settings)
    generator = torch.Generator().manual_seed(0)
    seen = [mixture.draw(kept[0], generator) for _ in range(200)]
    names = ("sks", "zwx", "t@t")
    assert {a.prompt for a in seen} == {
        p.format(f"{n} dog") for n in names for p in ("a photo of {}", "{} here")
    }
    assert {a.rank for a in seen} == {0, 2, 4}
    assert {round(a.learning_rate * 1e6) for a in seen} == {2000, 1000, 40000, 20000}
    assert all(torch.equal(a.c_V.tokens, exact.condition([a.prompt]).tokens) for a in seen[:5])


def test_preservation_keeps_the_answers_to_other_prompts(exact: TextToImage, dog: Subject) -> None:
    def change(weight: float) -> float:
        released = immunize(
            exact, [dog], "adversarial",
            {**FEW, "outer_steps": 12, "preserve_weight": weight}, prompts=["a cup", "a house"],
        )  # fmt: skip
        z_t = torch.randn(4, *exact.latent_shape, generator=torch.Generator().manual_seed(1)).double()
        t, c = torch.tensor([100, 300, 500, 900]), exact.condition(["a cup"]).expand(4)
        with torch.no_grad():
            return float((released.predict(z_t, t, c) - exact.predict(z_t, t, c)).square().mean())

    assert change(100.0) < 0.5 * change(1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack_depth": 3}, "multiple of inner_steps"),
        ({"attack_depth": 4, "attack_stride": 4}, r"multiple of inner_steps \(2\) times attack_stride \(4\)"),
        ({"inner_steps": 1, "attack_from_start": True}, "from_start needs a second gradient"),
        ({"attack_low_rank": 0.5}, "needs attack_ranks"),
        ({"attack_low_rank": 0.5, "attack_ranks": "4", "inner_steps": 0}, r"low_rank .*needs inner_steps"),
        ({"attack_text_encoder": 0.5, "inner_steps": 0}, r"text_encoder \(0.5\).*needs inner_steps"),
        ({"attack_ranks": ","}, "must be numbers"),
        ({"attack_ranks": "4,0"}, "must be at least 1"),
        ({"attack_rates": ""}, "must each hold at least one"),
        ({"attack_prompts": ","}, "must each hold at least one"),
        ({"attack_ranks": "nan"}, "must be numbers"),
        ({"attack_rates": "inf"}, "must be a finite number"),
        ({"attack_rates": "1,-1"}, "must be more than 0"),
        ({"unprotected_every": 1}, "must be 2 or more"),
        ({"unprotected_every": 3, "inner_steps": 0}, "needs inner_steps"),
        ({"unprotected_from": 0.5}, "needs unprotected_every"),
        ({"attack_rates": "fast"}, "must be numbers"),
        ({"class_images": 2}, "cannot be paired"),
        ({"preserve_weight": 1.0}, "needs prompts"),
        ({"attack_prompts": "a photo"}, "must contain"),
        ({"train": "everything"}, "one of all, attention"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(
    exact: TextToImage, dog: Subject, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        immunize(exact, [dog], "apdm", {**FEW, **settings})
    with pytest.raises(UsageError, match="no subject"):
        immunize(exact, [], "apdm", FEW)


def test_recomputed_activations_give_the_same_gradient(weights: Path, dog: Subject) -> None:
    model = tiny_model(weights)
    gradients = []
    for recompute in (False, True):
        defence = create("apdm", {**FEW, "precision": "bfloat16", "checkpointing": recompute})
        working = model.copy()
        if recompute:
            working.denoiser.enable_gradient_checkpointing()
        working.denoiser.train()
        l2p = L2P(working, model, defence, protected_subjects(model, [dog], defence.settings))
        l2p(0, step_generator(0, 0))
        gradients.append(torch.cat([theta.grad.flatten() for theta in l2p.theta if theta.grad is not None]))
    plain, recomputed = gradients
    assert float((plain - recomputed).norm() / plain.norm()) < 0.05


def test_a_second_run_may_keep_to_the_first_original(weights: Path, dog: Subject, cat: Subject) -> None:
    exact, other = tiny_model(weights, dtype="float64"), tiny_model(weights, dtype="float64", seed=1)
    settings = {**FEW, "outer_steps": 1, "inner_steps": 0}
    prior = {"cat": protected_subjects(exact, [cat], create("apdm", FEW).settings)[0].prior}
    by_itself, by_other = (
        immunize(exact, [cat], "apdm", settings, original=original, priors=prior)
        for original in (None, other)
    )
    assert moved(by_itself, by_other)
    assert moved(other, by_other)  # it began at the model, not at the original
    steps = [
        float((p - q).abs().max())
        for p, q in zip(exact.denoiser.parameters(), by_other.denoiser.parameters(), strict=True)
    ]
    assert max(steps) < 2e-3


def test_what_is_not_trained_stays_the_models_own_whatever_the_original(weights: Path, dog: Subject) -> None:
    model, other = tiny_model(weights, dtype="float64"), tiny_model(weights, dtype="float64", seed=1)
    released = immunize(model, [dog], "apdm", {**FEW, "train": "cross-attention"}, original=other)
    assert moved(model, released) == {name for name in weights_of(model) if ".attn2." in name}
