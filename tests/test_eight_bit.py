"""AdamW with 8-bit moments: its memory, its checkpoints, and what is said where it cannot be.

Each test of a training runs with a stand-in that keeps its state as bitsandbytes does, and with bitsandbytes
itself where that is installed (`pip install -c constraints.txt bitsandbytes`). The extra is in no other one,
because diffusers and peft import it at every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import pictures, tiny_model
from torch import Tensor

from unlikeness import eight_bit, training
from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.eight_bit import check_eight_bit, state_bytes
from unlikeness.errors import UnlikenessError
from unlikeness.gallery import to_pil
from unlikeness.immunize import cost as immunize_cost
from unlikeness.immunize import create as defence
from unlikeness.immunize import immunize
from unlikeness.personalize import create, personalize
from unlikeness.personalize.cost import memory
from unlikeness.subjects import Subject

CPU = torch.device("cpu")
SUBJECT = Subject(pictures(2, seed=5), "dog")
RATE = 1e-3
STEPS = {"steps": 4, "class_images": 2, "class_steps": 1, "learning_rate": RATE, "precision": "float32"}
L2P = {
    "outer_steps": 3, "inner_steps": 1, "class_images": 2, "class_steps": 1, "learning_rate": RATE,
    "attack_learning_rate": RATE, "precision": "float32",
}  # fmt: skip


class StandIn(torch.optim.Optimizer):
    """AdamW with moments in 8 bits by blocks. Its `state_dict` nests as that of bitsandbytes."""

    def __init__(self, parameters: Any, *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.qmap = torch.linspace(-1, 1, 255)

    def state_dict(self) -> dict[str, Any]:
        made = super().state_dict()
        state = {i: {"step": s["step"], "nested": {k: v for k, v in s.items() if k != "step"}}
                 for i, s in made["state"].items()}  # fmt: skip
        return {**made, "state": state}

    def load_state_dict(self, made: Mapping[str, Any]) -> None:
        every = [p for group in self.param_groups for p in group["params"]]
        assert not any(isinstance(v, Mapping) for s in made["state"].values() for v in s.values())
        for i, state in made["state"].items():
            self.state[every[i]] = dict(state)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, p.grad, group["lr"], group["weight_decay"])

    def _step(self, p: Tensor, g: Tensor, lr: float, weight_decay: float) -> None:
        s = self.state[p]
        s["step"] = n = s.get("step", 0) + 1
        m = self._read(p, "1") * 0.9 + 0.1 * g
        v = self._read(p, "2") ** 2 * 0.999 + 0.001 * g * g
        p.mul_(1 - lr * weight_decay)
        p.addcdiv_(m / (1 - 0.9**n), (v / (1 - 0.999**n)).sqrt() + 1e-8, value=-lr)
        self._write(p, "1", m)
        self._write(p, "2", v.sqrt())

    def _read(self, p: Tensor, which: str) -> Tensor:
        s = self.state[p]
        if f"state{which}" not in s:
            return torch.zeros_like(p)
        if f"absmax{which}" not in s:
            kept: Tensor = s[f"state{which}"]
            return kept
        blocks = s[f"absmax{which}"].repeat_interleave(256)[: p.numel()].view_as(p)
        read: Tensor = s["qmap"][s[f"state{which}"].int()] * blocks
        return read

    def _write(self, p: Tensor, which: str, value: Tensor) -> None:
        s = self.state[p]
        if p.numel() < 4096:
            s[f"state{which}"] = value
            return
        short = -p.numel() % 256
        blocks = torch.nn.functional.pad(value.flatten(), (0, short)).view(-1, 256)
        s[f"absmax{which}"] = most = blocks.abs().amax(1)
        scaled = blocks / most.clamp(min=1e-30)[:, None]
        s["qmap"] = self.qmap  # one table for all
        s[f"state{which}"] = (scaled * 127 + 127).ceil().byte().flatten()[: p.numel()].view_as(p)


@pytest.fixture(params=["stand-in", "bitsandbytes"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "bitsandbytes":
        if find_spec("bitsandbytes") is None:
            pytest.skip("bitsandbytes is not installed")
        return "bitsandbytes"
    monkeypatch.setattr("unlikeness.extras._found", lambda name: True)
    for place in (eight_bit, training):
        monkeypatch.setattr(place, "adamw8", StandIn)
    return "stand-in"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"))


def far(one: TextToImage, other: TextToImage) -> float:
    """Largest difference of two denoisers' weights."""
    pairs = zip(one.denoiser.parameters(), other.denoiser.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("method", ["dreambooth", "lora"])
def test_a_resumed_fine_tuning_ends_as_an_uninterrupted_one(
    method: str, library: str, model: TextToImage, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {**STEPS, "eight_bit_adam": True}
    if method == "lora":  # of 4,096 numbers and more in a factor, from where on moments are in 8 bits
        settings |= {"rank": 128, "text_encoder": True, "text_encoder_learning_rate": RATE / 2}
    whole = personalize(model, SUBJECT, method, settings)
    state = tmp_path / "state.safetensors"
    personalize(model, SUBJECT, method, {**settings, "steps": 2}, checkpoint=state)
    held = load_file(state)
    assert any(value.dtype == torch.uint8 for value in held.values())
    resumed = personalize(model, SUBJECT, method, settings, checkpoint=state)
    assert far(resumed, whole) == 0
    full = personalize(model, SUBJECT, method, {**settings, "eight_bit_adam": False})
    assert 0 < far(full, whole) < 4 * RATE


@pytest.mark.parametrize("further", [{"attack_depth": 2}, {"rank": 128}], ids=str)
def test_a_resumed_immunization_ends_as_an_uninterrupted_one(
    further: dict[str, Any], library: str, model: TextToImage, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = {**L2P, **further, "eight_bit_adam": True}
    whole = immunize(model, [SUBJECT], "apdm", settings)
    state = tmp_path / "state.safetensors"

    def stop(done: int, _: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "PAUSE", 0.0)  # a checkpoint wherever there may be one
    with pytest.raises(KeyboardInterrupt):
        immunize(model, [SUBJECT], "apdm", settings, checkpoint=state, after=stop)
    assert any(value.dtype == torch.uint8 for value in load_file(state).values())
    resumed = immunize(model, [SUBJECT], "apdm", settings, checkpoint=state)
    assert far(resumed, whole) == 0


@pytest.mark.parametrize("shape", [(63, 65), (64, 64), (77, 100), (5000,)], ids=str)
def test_the_memory_is_that_of_the_states(shape: tuple[int, ...], library: str) -> None:
    p = torch.zeros(shape, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = training.adamw([p], lr=1e-3, eight_bit=True)
    optimizer.step()
    held = {k: v for k, v in optimizer.state[p].items() if isinstance(v, Tensor) and "qmap" not in k}
    said, in_full = (state_bytes([p], eight_bit=on) for on in (True, False))
    assert sum(v.numel() * v.element_size() for v in held.values()) == said
    assert said == in_full if p.numel() < 4096 else said < in_full / 3


def test_a_dry_run_counts_them(model: TextToImage) -> None:
    ours, theirs = "their AdamW states", "the attacker's AdamW states"
    plain, short = (memory(model, create("dreambooth", {"eight_bit_adam": on})) for on in (False, True))
    assert short[ours] == state_bytes(model.denoiser.parameters(), eight_bit=True) < plain[ours] / 2
    assert {**plain, ours: 0} == {**short, ours: 0}
    plain, short = (
        immunize_cost.memory(model, defence("apdm", {"eight_bit_adam": on})) for on in (False, True)
    )
    assert short[ours] == short[theirs] == state_bytes(model.denoiser.parameters(), eight_bit=True)
    assert {**plain, ours: 0, theirs: 0} == {**short, ours: 0, theirs: 0}


@pytest.mark.parametrize("command", ["personalize", "immunize"])
def test_without_the_extra_one_sentence_names_it(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unlikeness.extras._found", lambda name: name != "bitsandbytes")
    monkeypatch.setattr(TextToImage, "from_pretrained", None)  # it is said before a model is loaded
    (tmp_path / "photos").mkdir()
    to_pil(pictures(1)[0]).save(tmp_path / "photos" / "0.png")
    words = [command, "--images", str(tmp_path / "photos"), "--class-noun", "dog", "--model", "toybox"]
    assert main([*words, "--output", str(tmp_path / "out"), "--set", "eight_bit_adam=true"]) == 1
    assert capsys.readouterr().err == (
        "unlikeness: --set eight_bit_adam=true needs an extra that is not installed (bitsandbytes is "
        'missing); pip install "unlikeness[eight-bit]"\n'
    )


@pytest.mark.parametrize("fault", ["no kernel", "wrong"])
def test_a_device_that_cannot_is_refused_before_anything_is_drawn(
    fault: str, model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unfit(torch.optim.SGD):
        def __init__(self, parameters: Any, *, lr: float, weight_decay: float) -> None:
            super().__init__(parameters, lr=9.0)

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            if fault == "no kernel":
                raise NotImplementedError("optimizer_update_8bit_blockwise has no kernel\nfor this device")
            super().step()

    monkeypatch.setattr("unlikeness.extras._found", lambda name: True)
    monkeypatch.setattr(eight_bit, "adamw8", Unfit)
    monkeypatch.setattr(TextToImage, "generate", None)
    said = r"^eight_bit_adam=true does not work on cpu \([^\n]+\); leave it out$"
    with pytest.raises(UnlikenessError, match=said):
        check_eight_bit(CPU)
    with pytest.raises(UnlikenessError, match=said):
        personalize(model, SUBJECT, "lora", {**STEPS, "eight_bit_adam": True})
    with pytest.raises(UnlikenessError, match=said):
        immunize(model, [SUBJECT], "apdm", {**L2P, "eight_bit_adam": True})
