"""The immunization benchmark from cell to table, on the embedded model in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import common, personalization
from experiments import immunization, immunization_tables, immunizing, rows
from unlikeness.diffusion import TextToImage
from unlikeness.subjects import Subject
from unlikeness.toybox.cast import unseen
from unlikeness.verify.attack import Attacked, run_attacker
from unlikeness.verify.attackers import GRAY_BOX, Attacker

pytestmark = pytest.mark.usefixtures("apart")


@pytest.mark.usefixtures("unattacked")
def test_from_cells_to_table(quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "immunization.json"
    flags = [*quick, "--results", str(path), "--strengths", "gentle"]
    immunization.cli([*flags, "--rows", "none,apdm", "--attackers", "paper,lora-4"])
    record = common.load(path)
    ends = ("quality", "gentle/paper", "gentle/lora-4", "gentle/same class", "gentle/another class")
    wanted = {f"{row}/person-0/{end}" for row in ("none", "apdm") for end in ends}
    assert set(record["cells"]) == wanted | {"apdm/person-0/made"}
    quality = record["cells"]["none/person-0/quality"]
    assert quality["fid"] == quality["fid_original"]
    assert quality["diversity"] == pytest.approx(1)
    shown = capsys.readouterr().out
    assert immunization.render(record) in shown
    assert "| apdm | gentle | lora-4 |" in shown
    got = {name: record["cells"][f"apdm/person-0/gentle/{name}"]["s"] for name in ("paper", "lora-4")}
    worst = max(got, key=lambda name: got[name])
    paper, lora = (f"{got[name]:.2f} (1)" for name in ("paper", "lora-4"))
    assert f"| apdm | {paper} | – | {lora} | – | – | {got[worst]:.2f} ({worst}) | – | – |" in shown
    assert record["sheets"] == ["apdm"]
    with (
        Image.open(tmp_path / "immunization-apdm.png") as sheet,
        Image.open(next((common.RUNS / "work").rglob("none-person-0-paper-5e-05.png"))) as strip,
    ):
        assert sheet.size == (3 * strip.width + 16, strip.height // 2)
        width, half = strip.width, strip.height // 2
        upper = strip.crop((0, 0, width, half))
        assert sheet.crop((0, 0, width, half)).tobytes() == upper.tobytes()
    # What is there is not made again, and a smaller run keeps it.
    immunization.cli([*flags, "--rows", "none", "--attackers", "paper"])
    assert common.load(path)["cells"] == record["cells"]
    # Ablations have a table of their own, on the subjects that they have.
    assert immunization_tables._ablations(record) == []
    cells = record["cells"]
    cells |= {f"apdm-short/{k.split('/', 1)[1]}": cell for k, cell in cells.items() if k.startswith("apdm/")}
    [_, table, told] = immunization_tables._ablations(record)
    s = cells["apdm/person-0/gentle/paper"]["s"]
    assert f"| the method | 0.138 (N_per 20) | {s:.2f} [" in table
    assert "| N_per 5 | 0.337 | – | – |" in table
    assert "on person-0" in told


@pytest.mark.usefixtures("unattacked")
def test_outputs_where_none_should_be_have_a_table(quick: list[str], tmp_path: Path) -> None:
    path = tmp_path / "immunization.json"
    immunization.cli([
        *quick, "--results", str(path), "--rows", "none,pattern",
        "--attackers", "paper", "--others", "same class",
    ])  # fmt: skip
    record = common.load(path)
    cells = record["cells"]
    other, quality = cells["pattern/person-0/gentle/same class"], cells["pattern/person-0/quality"]
    other["protective"], other["protective_new_context"], quality["protective"] = 0.5, 0.25, 0.125
    results = common.Results(path, "immunization", record["about"], keep=True)
    results.cells.update(cells)
    record["summary"] = immunization_tables.sum_up(results, 0)
    assert "| pattern | 50% / 25% | 12% | 1 |" in immunization_tables.render(record)
    for cell in (other, quality):
        for name in immunizing.PROTECTIVE:
            cell.pop(name, None)
    results.cells.update(cells)
    record["summary"] = immunization_tables.sum_up(results, 0)
    assert "where none should be" not in immunization_tables.render(record)


def test_another_subject_may_go_under_another_name(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, str]] = []

    def watched(released: TextToImage, subject: Subject, one: Attacker, *args: Any, **how: Any) -> Attacked:
        attacked = run_attacker(released, subject, one, *args, **how)
        seen.append((one.name, attacked.subject.identifier))
        return attacked

    monkeypatch.setattr("experiments.immunization.run_attacker", watched)
    path, kinds = tmp_path / "immunization.json", "same class,same class renamed"
    how = [*quick, "--results", str(path), "--attackers", "paper", "--others", kinds]
    immunization.cli([*how, "--rows", "none"])
    assert seen == [("paper", "sks"), ("paper", "sks"), ("other-identifier", "t@t")]
    assert {f"none/person-0/gentle/{kind}" for kind in kinds.split(",")} < set(common.load(path)["cells"])
    assert "| s, same class, gentle | s, same class renamed, gentle |" in capsys.readouterr().out


def test_the_unprotected_are_of_both_kinds_and_in_no_cast() -> None:
    for who in unseen(8):
        others = immunizing.others_of(who)
        assert others["same class"].class_noun == who.class_noun
        assert others["another class"].class_noun != who.class_noun
        assert all(other.seed >= 50_000 for other in others.values())


def test_the_gray_box_draws_from_the_pools_of_the_row() -> None:
    assert immunization.possible(GRAY_BOX, "divert-mixed")
    assert not any(immunization.possible(GRAY_BOX, row) for row in ("none", "apdm"))
    assert immunization.pools("divert-mixed") == {
        "pool_identifiers": rows.ROWS["divert-mixed"][1]["attack_identifiers"],
        "pool_templates": rows.ROWS["divert-mixed"][1]["attack_prompts"],
    }
    assert immunization.pools("none") == {}


@pytest.mark.usefixtures("unattacked")
def test_tuning_subjects_have_a_file_of_their_own(quick: list[str], tmp_path: Path) -> None:
    """And its sheets are not those of the unseen subjects."""
    path = tmp_path / "immunization_tuning.json"
    flags = [*quick, "--tuning", "--results", str(path), "--others", "none"]
    immunization.cli([*flags, "--rows", "none,divert", "--attackers", "paper"])
    record = common.load(path)
    [who] = unseen(1, personalization.TUNING_SEED)
    assert f"divert/{personalization.key_of(who)}/gentle/paper" in record["cells"]
    assert record["benchmark"] == "immunization_tuning"
    assert [file.name for file in tmp_path.glob("*.png")] == ["immunization_tuning-divert.png"]
