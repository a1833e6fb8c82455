"""The training loop: what it minimises, when it stops, and that a resumed run is the same run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.progress import Silent
from unlikeness.seeds import step_generator
from unlikeness.training import (
    Ema,
    Trained,
    adamw,
    constant,
    cosine,
    linear,
    train,
    trapezoid,
)


class Run:
    """A regression whose every batch is drawn from the step's generator."""

    def __init__(self, *, layout: torch.memory_format = torch.contiguous_format, fused: bool = True) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = torch.nn.Sequential(
                torch.nn.Conv2d(2, 6, 3), torch.nn.SiLU(), torch.nn.Conv2d(6, 1, 3)
            )
        self.net.to(memory_format=layout)  # type: ignore[call-overload]
        self.parameters = list(self.net.parameters())
        self.optimizer = (
            adamw(self.parameters, lr=1e-2) if fused else torch.optim.AdamW(self.parameters, lr=1e-2)
        )
        self.ema = Ema(self.parameters, decay=0.9)
        self.killed_at: int | None = None

    def step(self, index: int, generator: torch.Generator) -> torch.Tensor:
        if index == self.killed_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 2, 6, 6, generator=generator)
        y: torch.Tensor = self.net(x)
        return (y - x[:, :1, 2:-2, 2:-2]).square().mean()

    def train(self, steps: int, checkpoint: Path | None = None, *, seed: int = 1) -> Trained:
        return train(
            self.step,
            steps=steps,
            optimizer=self.optimizer,
            parameters=self.parameters,
            seed=seed,
            schedule=cosine(30, warmup=5),
            ema=self.ema,
            checkpoint=checkpoint,
            every=4,
            settings={"width": 6},
        )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_killed_run_resumes_bit_by_bit(layout: torch.memory_format, fused: bool, tmp_path: Path) -> None:
    whole = Run(layout=layout, fused=fused)
    losses = whole.train(20).losses
    killed = Run(layout=layout, fused=fused)
    killed.killed_at = 10
    with pytest.raises(KeyboardInterrupt):
        killed.train(20, tmp_path / "run" / "state.safetensors")
    resumed = Run(layout=layout, fused=fused)
    result = resumed.train(20, tmp_path / "run" / "state.safetensors")
    assert result.resumed_at == 8
    assert result.losses == losses[8:]
    for ours, theirs in zip(resumed.parameters, whole.parameters, strict=True):
        assert torch.equal(ours, theirs)
    for mean, expected in zip(resumed.ema.averages, whole.ema.averages, strict=True):
        assert torch.equal(mean, expected)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["state.safetensors"]
    done = Run(layout=layout, fused=fused)
    assert done.train(20, tmp_path / "run" / "state.safetensors").losses == []
    assert torch.equal(done.parameters[0], whole.parameters[0])


def test_the_loss_falls() -> None:
    losses = Run().train(200).losses
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.safetensors"
    Run().train(4, checkpoint)
    with pytest.raises(UsageError, match="another run"):
        Run().train(8, checkpoint, seed=2)
    other = Run()
    other.parameters = other.parameters[:2]
    with pytest.raises(UsageError, match="another run"):
        other.train(8, checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(UnlikenessError, match="damaged"):
        Run().train(8, checkpoint)


def test_a_users_own_file_is_not_taken_for_a_damaged_checkpoint(tmp_path: Path) -> None:
    picture = tmp_path / "0.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for wrong, said in ((picture, "is no checkpoint of a training"), (tmp_path, "is no file")):
        with pytest.raises(UsageError, match=said):
            Run().train(8, wrong)
    assert picture.stat().st_size == 108


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(value: float) -> None:
    weight = torch.nn.Parameter(torch.ones(1))

    def step(index: int, generator: torch.Generator) -> torch.Tensor:
        return (weight * (value if index == 3 else 1.0)).sum()

    with pytest.raises(NotFiniteError, match=r"diverged at step 3 .*lower the learning rate"):
        train(step, steps=9, optimizer=torch.optim.SGD([weight], lr=0.1), parameters=[weight], seed=0)
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("every", [1, 500])
def test_weights_that_the_last_step_spoilt_are_not_kept(tmp_path: Path, every: int) -> None:
    weight = torch.nn.Parameter(torch.full((1,), 3e38))

    def step(index: int, generator: torch.Generator) -> torch.Tensor:
        return (weight * (-1.0 if index == 2 else 0.0)).sum()

    kept = tmp_path / "state.safetensors"
    with pytest.raises(NotFiniteError, match=r"diverged by step 3 \(its weights are not finite\)"):
        train(
            step, steps=3, optimizer=torch.optim.SGD([weight], lr=1e38), parameters=[weight], seed=0,
            clip=None, checkpoint=kept, every=every,
        )  # fmt: skip
    assert kept.exists() == (every == 1)
    if kept.exists():
        assert all(t.isfinite().all() for t in load_file(kept).values() if t.is_floating_point())


def test_the_gradient_is_clipped_to_its_norm() -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    train(lambda i, g: 30 * weight.sum(), steps=1, optimizer=optimizer, parameters=[weight], seed=0, clip=0.5)
    assert torch.allclose(weight.norm(), torch.tensor(0.5), atol=1e-4)


def test_learning_rates_follow_their_schedules() -> None:
    assert [constant(warmup=4)(i) for i in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    assert constant()(0) == 1.0
    assert [linear(10)(i) for i in (0, 5, 10)] == [1.0, 0.5, 0.0]
    assert cosine(100, warmup=10)(9) == 1.0
    assert cosine(100)(50) == pytest.approx(0.5)
    assert cosine(100, floor=0.1)(100) == pytest.approx(0.1)
    held = trapezoid(100, warmup=10, fall=0.2)
    assert [held(4), held(9), held(80), held(90), held(100)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    train(
        lambda i, g: weight.sum(), steps=3, optimizer=optimizer, parameters=[weight], seed=0,
        schedule=constant(warmup=2),
    )  # fmt: skip
    assert weight.item() == pytest.approx(-0.1 * (0.5 + 1 + 1))


def test_generators_of_steps_are_reproducible_and_differ() -> None:
    def draw(seed: int, index: int) -> float:
        return torch.rand(1, generator=step_generator(seed, index)).item()

    drawn = {draw(seed, index) for seed in range(10) for index in range(10)}
    assert len(drawn) == 100
    assert draw(3, 4) == draw(3, 4)


def test_an_average_lags_and_is_applied_for_a_while_only() -> None:
    weight = torch.zeros(2)
    ema = Ema([weight], decay=0.5)
    for _ in range(40):
        weight += 1
        ema.update()
    assert torch.allclose(ema.averages[0], torch.full((2,), 39.0), atol=1e-3)
    with ema.applied():
        assert torch.equal(weight, ema.averages[0])
    assert torch.equal(weight, torch.full((2,), 40.0))
    with pytest.raises(UsageError):
        Ema([weight], decay=1.0)


def test_progress_hears_every_step_and_the_resumed_ones(tmp_path: Path) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.initial, self.losses = -1, list[float]()

        def start(self, total: int | None, description: str, unit: str = "it", *, initial: int = 0) -> None:
            self.initial = initial

        def advance(self, n: int = 1, **figures: float) -> None:
            self.losses.append(figures["loss"])

    weight = torch.nn.Parameter(torch.ones(1))

    def run(steps: int) -> tuple[Heard, list[int]]:
        heard, seen = Heard(), list[int]()
        train(
            lambda i, g: weight.square().sum(), steps=steps, parameters=[weight], seed=0, progress=heard,
            optimizer=torch.optim.SGD([weight], lr=0.1), checkpoint=tmp_path / "c",
            after=lambda n, _: seen.append(n),
        )  # fmt: skip
        return heard, seen

    run(2)
    heard, seen = run(5)
    assert heard.initial == 2
    assert len(heard.losses) == 3
    assert seen == [3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 3}, {"groups": []}, {"groups": [{}]}, {"numbers": []}, {"numbers": {"x": {}}},
        {"numbers": {"0": 3}}, {"step": None}, {"step": "x"}, {"step": 1e400}, {"updates": []},
        {"identity": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_no_training_wrote_is_one_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    checkpoint = tmp_path / "state.safetensors"
    Run().train(4, checkpoint)
    with safe_open(checkpoint, "pt") as opened:
        header = json.loads(opened.metadata()["training"])
    tensors = load_file(checkpoint)
    for text in (json.dumps({**header, **change}), "[" * 200_000, "[]", "3"):
        save_file(tensors, checkpoint, {"training": text})
        with pytest.raises(UnlikenessError, match="delete it, or give another name") as caught:
            Run().train(8, checkpoint)
        assert "\n" not in str(caught.value)
    tensors["optimizer.99.exp_avg"] = torch.zeros(1)
    save_file(tensors, checkpoint, {"training": json.dumps(header)})
    with pytest.raises(UnlikenessError, match="damaged"):
        Run().train(8, checkpoint)
