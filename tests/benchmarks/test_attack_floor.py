"""The floor of an attack: the same subject, once on the model and once on weights that know nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.judging import Judge

from benchmarks import attack_floor, common
from unlikeness.diffusion import TextToImage

pytestmark = pytest.mark.usefixtures("apart")


def test_the_untrained_model_shares_all_but_the_u_net() -> None:
    model = TextToImage.from_pretrained("toybox", device="cpu", dtype="float32")
    random, again = attack_floor.untrained(model, 0), attack_floor.untrained(model, 0)
    assert random.autoencoder.network is model.autoencoder.network
    assert random.conditioner is model.conditioner
    names = dict(model.denoiser.named_parameters())
    changed = [not torch.equal(p, names[name]) for name, p in random.denoiser.named_parameters()]
    assert sum(changed) > len(changed) / 2
    pairs = zip(random.denoiser.parameters(), again.denoiser.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


def test_from_cells_to_table(
    model: TextToImage,
    judge: Judge,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stand-in for the attack and the judges."""
    monkeypatch.setattr(attack_floor, "toybox_judge", lambda counts: (judge, "stand-ins"))
    monkeypatch.setattr("benchmarks.attacking.attack", lambda *_, **__: model)
    path = tmp_path / "attack_floor.json"
    attack_floor.cli(["--quick", "--results", str(path), "--device", "cpu"])
    record = common.load(path)
    assert set(record["cells"]) == {f"{name}/2e-05/person-1000" for name in ("trained", "random")}
    assert attack_floor.render(record) in capsys.readouterr().out
    assert "| dreambooth | 2e-05 | 2 |" in attack_floor.render(record)
    # A longer attack adds its cells to those that are there.
    attack_floor.cli(["--quick", "--results", str(path), "--device", "cpu", "--times", "2"])
    again = common.load(path)
    assert {key: again["cells"][key] for key in record["cells"]} == record["cells"]
    assert set(again["cells"]) - set(record["cells"]) == {
        f"{name}/2e-05 x 2/person-1000" for name in ("trained", "random")
    }
    assert "| dreambooth | 2e-05 | 4 |" in attack_floor.render(again)
