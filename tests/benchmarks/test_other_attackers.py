"""Other attackers, from cell to table, on tiny models with stand-ins for the judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.judging import Judge
from benchmarks.publishing import QUICK, tagged
from tests.tiny import tiny_model, write_tiny

from benchmarks import attacking, common, other_attackers, protection
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.toybox.cast import member, unseen

pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def settings() -> dict[str, dict[str, Any]]:
    quick = {**attacking.QUICK_COMMON, "steps": 1}
    return {method: attacking.full_settings(method, quick) for method in ("dreambooth", "lora")}


@pytest.fixture
def other(models: Path) -> TextToImage:
    return tiny_model(models, seed=1)


def test_from_cells_to_table(
    model: TextToImage, other: TextToImage, judge: Judge, settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "other_attackers.json"
    every = other_attackers.attackers(list(other_attackers.LABELS), model, other, settings)
    about = {"seed": 0, **settings}
    wanted: dict[str, Any] = {"budget": 8, "seed": 0, "further": QUICK}

    def run(attackers: Any, methods: list[str], count: int = 1) -> dict[str, Any]:
        results = common.Results(path, "other_attackers", about)
        other_attackers.measure(
            model, judge, results, attackers, cast=unseen(count), methods=methods, **wanted
        )
        return common.load(path)

    rid, tag = tagged("rid"), every[-1].name
    record = run(every, ["rid"])
    assert list(record["cells"]) == [
        "person-0/lora/clean", f"person-0/lora/{rid}/8", "person-0/gentle/clean",
        f"person-0/gentle/{rid}/8", f"person-0/jpeg-75/{rid}/8", f"person-0/half-size/{rid}/8",
        f"person-0/{tag}/clean", f"person-0/{tag}/{rid}/8",
    ]  # fmt: skip
    # Another model draws class pictures of its own.
    assert len(list((tmp_path / "runs").rglob("prior-person-*.safetensors"))) == 2
    assert not list((tmp_path / "runs").rglob("person-0*.safetensors"))
    # A smaller run, or one without the other model, leaves all rows, and computes nothing that is there.
    before = record["cells"]
    record = run(every[:1], ["advdm", "rid"], 2)
    assert {key: record["cells"][key] for key in before} == before
    table = [line for line in other_attackers.render(record).splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[:2] for line in table] == [
        ["| LoRA", "clean"], ["| LoRA", "advdm, 8/255"], ["| LoRA", "rid, 8/255"],
        ["| DreamBooth at a tenth of the rate", "clean"],
        ["| DreamBooth at a tenth of the rate", "rid, 8/255"],
        ["| JPEG 75, then DreamBooth", "rid, 8/255"], ["| half size, then DreamBooth", "rid, 8/255"],
        ["| DreamBooth on another model", "clean"], ["| DreamBooth on another model", "rid, 8/255"],
    ]  # fmt: skip
    assert [line.split(" | ")[-1] for line in table] == ["2 |"] * 3 + ["1 |"] * 6


def test_a_wash_comes_before_the_attack(model: TextToImage, settings: dict[str, Any], tmp_path: Path) -> None:
    seen = []

    def attack(model: TextToImage, subject: Any, method: str, *further: Any, **_: Any) -> TextToImage:
        seen.append((subject.images, method, further[0]["learning_rate"]))
        return model

    who = member(0, "dog").subject(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attacking, "attack", attack)
        for attacker in other_attackers.attackers(list(other_attackers.LABELS), model, None, settings):
            attacker.copy(who, tmp_path / "checkpoint")
    (lora, how, _), (gentle, _, slow), (jpeg, _, usual), (half, last, _) = seen  # there is no other model
    assert torch.equal(gentle, who.images)
    assert slow == pytest.approx(0.1 * usual)
    assert torch.equal(lora, who.images)
    assert (how, last) == ("lora", "dreambooth")
    for washed in (jpeg, half):
        assert washed.shape == lora.shape
        assert 0 < float((washed - lora).abs().mean()) < 0.1
    down = torch.nn.functional.avg_pool2d(half, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    sharp = torch.nn.functional.avg_pool2d(lora, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float((half - down).square().mean()) < float((lora - sharp).square().mean())


def test_of_other_models_only_the_one_at_hand_stays(
    model: TextToImage, other: TextToImage, judge: Judge, settings: dict[str, Any]
) -> None:
    made = other_attackers.attackers(["another-model"], model, other, settings)
    figures, _ = judge.look(model, unseen(1)[0], unseen(1)[0].subject(2), 0)
    cells = {f"dog-0/{name}/clean": figures for name in (made[0].name, "another-model@0ld")}
    cells["dog-0/lora/rid@0ld/8"] = figures
    assert list(other_attackers.table_of(cells, made, seed=0)) == [f"{made[0].name}/clean"]
    assert len(other_attackers.table_of(cells, [], seed=0)) == 2
    again = replace(made[0], name="another-model@0ld")
    assert list(other_attackers.table_of(cells, [again], seed=0)) == ["another-model@0ld/clean"]


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UsageError, match="there are lora, gentle"):
        other_attackers.asked("lora,gif", None)
    with pytest.raises(UsageError, match="--other"):
        other_attackers.asked("another-model", None)
    assert other_attackers.asked("lora, half-size", None) == ["lora", "half-size"]


def test_the_command_in_small(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(other_attackers, "toybox_judge", lambda counts: (judge, "stand-ins"))
    model = str(write_tiny(tmp_path / "tiny"))
    other_attackers.cli(["--quick", "--model", model, "--other", model, "--methods", "noise"])
    shown = capsys.readouterr().out
    assert "| DreamBooth on another model | noise, 8/255 |" in shown
    assert "lora with 2 steps" in shown
    assert (tmp_path / "runs" / "quick" / "other_attackers.json").exists()
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    with pytest.raises(UsageError, match="no lora setting is chosen"):
        protection.chosen("lora", "aaa")
