"""`unlikeness verify` from folders to a certificate, on a tiny model with toybox subjects."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import write_tiny
from tests.verify.test_run import outcome, verdict

from unlikeness.cli import main
from unlikeness.gallery import to_pil
from unlikeness.toybox.cast import class_pictures, member
from unlikeness.verify.job import Verification

QUICK = [
    "--preset", "stable-diffusion", "--context", "at 7", "-q",
    *(
        word
        for value in (
            "steps=2", "class_images=2", "class_steps=2", "pictures=2", "pictures-in-context=1",
            "others_of_class=4", "quality_pictures=5", "solver_steps=2", "lora-4.rank=2",
        )
        for word in ("--set", value)
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and pictures of one mug, and of a cat that is not protected."""
    folder = tmp_path_factory.mktemp("home")
    write_tiny(folder / "model")
    write_tiny(folder / "original", seed=1)
    mug, cat = member(3, "mug"), member(2, "cat")
    for name, images in (
        ("images", mug.subject(2).images),
        ("held-out", mug.held_out(3)),
        ("others/cat/tom", cat.subject(3).images),
        ("others-held-out/cat/tom", cat.held_out(2)),
    ):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            to_pil(image).save(folder / name / f"{i}.png")
    return folder


def words(home: Path, output: Path, *further: str) -> list[str]:
    images = [] if "--images" in further else ["--images", str(home / "images")]
    base = ["verify", str(home / "model"), *images, "--class-noun", "mug"]
    base += ["--held-out", str(home / "held-out"), "--output", str(output)]
    attackers = [] if "--attackers" in further else ["--attackers", "paper,lora-4"]
    return [*base, *QUICK, *attackers, *further]


def test_a_certificate(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(home / "model", model)
    record = model / "immunization.json"
    record.write_text('{"method": "apdm", "measured": null, "original_fingerprint": "0123"}')
    output = tmp_path / "out"
    arguments = [
        *words(home, output, "--original", str(home / "original"), "--unprotected", str(home / "others")),
        *("--unprotected-held-out", str(home / "others-held-out")),
    ]
    arguments[1] = str(model)
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "worst attacker: " in out
    assert "certificate.html" in out
    made = json.loads((output / "certificate.json").read_text())
    assert made["headline"]["attacker"] in ("paper", "lora-4")
    assert made["attackers"]["lora-4"]["settings"]["rank"] == 2
    assert made["held_out"] is True
    assert made["unprotected"][0]["name"] == "cat-tom"
    assert made["unprotected"][0]["held_out"] is True
    assert made["quality"]["n"] == 5
    assert made["about"]["settings"]["pictures_in_context"] == 1
    assert (output / "grids" / "lora-4.png").is_file()
    assert json.loads(record.read_text())["measured"] is None
    copied = json.loads((output / "immunization.json").read_text())
    assert list(copied["measured"]) == [made["about"]["pictures_sha256"]]

    # Again: nothing is trained, and the record of the model itself is filled.
    before = {file.name: file.stat().st_mtime_ns for file in (output / "work").iterdir()}
    capsys.readouterr()
    assert main([word for word in arguments if word != "-q"] + ["--sign"]) == 0
    assert f"--original {home / 'original'} has other weights than the model that" in capsys.readouterr().err
    assert {file.name: file.stat().st_mtime_ns for file in (output / "work").iterdir()} == before
    assert list(json.loads(record.read_text())["measured"]) == list(copied["measured"])


def test_the_notice_and_the_pools_of_an_immunized_model(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = (
        "outer_steps=1", "class_images=2", "class_steps=2", "pictures=1", "contexts=a photo of {} at 7",
        "behaviour=target", "target_noun=cat", "identifiers=zwx,t@t", "templates=a photo of {}|a {}",
    )  # fmt: skip
    released = tmp_path / "released"
    immunized = [
        *("immunize", "--model", str(home / "model"), "--method", "persguard", "--class-noun", "mug", "-q"),
        *("--images", str(home / "images"), "--output", str(released), "--identifier", "xjy"),
        *(word for value in quick for word in ("--set", value)),
    ]
    assert main(immunized) == 0
    capsys.readouterr()

    def run(name: str, *further: str) -> tuple[dict[str, Any], str]:
        arguments = words(home, tmp_path / name, *further)
        arguments[1] = str(released)
        assert main(arguments) == 0
        made: dict[str, Any] = json.loads((tmp_path / name / "certificate.json").read_text())
        return made, capsys.readouterr().out

    made, out = run("out", "--attackers", "paper,other-identifier,gray-box")
    assert made["notice"]["behaviour"] == "target"
    assert (made["notice"]["target_noun"], made["notice"]["read_by"]) == ("cat", "toybox")
    assert made["notice"]["from"] == "immunization.json"
    for one in (made["released"], *made["attackers"].values()):
        assert one["notice"]["at_training_prompt"]["n"] == 2
        assert one["notice"]["in_new_contexts"]["n"] == 1
    assert "protective output (target, a cat instead of the mug), share of pictures" in out
    assert [line.partition(":")[0] for line in out.splitlines() if line.startswith("  ")] == [
        "  released", "  paper", "  other-identifier", "  gray-box",
    ]  # fmt: skip
    assert made["about"]["settings"]["pool_identifiers"] == ["zwx", "t@t"]
    assert made["about"]["identifier"] == "xjy"
    assert made["attackers"]["paper"]["prompt"] == "a photo of xjy mug"
    gray = {f"{start}{word} mug" for start in ("a photo of ", "a ") for word in ("zwx", "t@t")}
    assert made["attackers"]["gray-box"]["prompt"] in gray
    assert made["attackers"]["other-identifier"]["prompt"] == "a photo of sks mug"  # t@t is in the pool
    record = json.loads((tmp_path / "out" / "immunization.json").read_text())
    assert list(record["measured"][made["about"]["pictures_sha256"]]["notice"]["attackers"]) == [
        "paper", "other-identifier", "gray-box",
    ]  # fmt: skip

    made, out = run(
        "own", "--attackers", "paper,gray-box", "--protective-output", "none", "--set", "pool_identifiers=",
        "--set", "pool_templates=", "--identifier", "sks",
    )  # fmt: skip
    assert made["attackers"]["paper"]["prompt"] == "a photo of sks mug"
    assert made["notice"] is None
    assert "protective output (" not in out
    assert "needs pools" in made["left_out"]["gray-box"]

    arguments = [word for word in words(home, tmp_path / "noun", "--attackers", "paper") if word != "-q"]
    arguments[1] = str(released)
    named = arguments.index("--class-noun") + 1
    arguments[named] = "cup"
    assert main([*arguments, "--identifier", "sks", "--classifier", "nowhere"]) == 2
    err = capsys.readouterr().err
    assert "protected as 'xjy mug' and is attacked as 'sks cup', as --identifier and --class-noun say" in err
    assert main([*arguments, "--classifier", "nowhere"]) == 2
    assert "as 'mug' and is attacked as 'cup', as --class-noun says: no attacker" in capsys.readouterr().err
    arguments[named] = "Mug"
    assert main([*arguments, "--classifier", "nowhere"]) == 2
    assert "attacked as" not in capsys.readouterr().err

    # A downloaded record's words reach the terminal as plain text.
    record_file = released / "immunization.json"
    text = record_file.read_text()
    record_file.write_text(text.replace('"identifier": "xjy"', '"identifier": "\\u001bx"'))
    assert main([*arguments, "--classifier", "nowhere", "--identifier", "sks"]) == 2
    assert "\x1b" not in (err := capsys.readouterr().err)
    assert "protected as " in err
    made, out = run("escape", "--attackers", "paper", "--protective-output", "none")
    assert made["about"]["identifier"] == "\x1bx"
    assert "\x1b" not in out
    record_file.write_text(text)

    arguments = words(home, tmp_path / "other", "--attackers", "paper")
    arguments = [word for word in arguments if word != "-q"]
    arguments[1], arguments[3] = str(released), str(home / "others" / "cat" / "tom")
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "none of the subjects in immunization.json has one of these pictures" in err
    assert "protective output (" not in out


def test_a_provider_s_pipeline_fails_on_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(home, tmp_path / "out", "--fail-above", "-5")) == 1
    assert "worst attacker" in capsys.readouterr().out
    assert (tmp_path / "out" / "certificate.html").is_file()
    assert main(words(home, tmp_path / "out", "--fail-above", "5")) == 0

    before = (tmp_path / "out" / "certificate.json").read_bytes()
    other = words(home, tmp_path / "out", "--images", str(home / "others" / "cat" / "tom"))
    other[1] = str(home / "original")
    capsys.readouterr()
    assert main(other) == 2
    assert "is the certificate of other pictures and of another model" in capsys.readouterr().err
    assert (tmp_path / "out" / "certificate.json").read_bytes() == before


@pytest.mark.parametrize(
    ("s", "clean", "above", "status"),
    [
        (0.1, 0.9, None, 0), (0.1, 0.9, "0.3", 0), (0.1, 0.9, "0.05", 1), (0.6, 0.9, None, 0),
        (0.6, 0.9, "0.7", 0), (0.6, 0.9, "0.3", 1), (0.1, 0.1, None, 0), (0.1, 0.1, "0.3", 1),
        (0.1, None, "0.3", 1), (0.0, 0.1, "5", 1),
    ],
)  # fmt: skip
def test_status_and_last_line_follow_the_verdict(
    s: float, clean: float | None, above: str | None, status: int, home: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = None if clean is None else outcome("paper", clean)
    found = verdict(outcome("paper", s), clean=before, control_of="the original" if before else "")
    monkeypatch.setattr(Verification, "run", lambda self, **_: found)
    assert main(words(home, tmp_path / "out", *(["--fail-above", above] if above else []))) == status
    last = capsys.readouterr().out.splitlines()[-1]
    if s == 0.6:
        assert last.startswith("The attacker paper learnt the subject (s 0.60")
    elif clean == 0.9:
        assert last.startswith("No attacker learnt the subject (at most s 0.10")
        assert "The same attackers learn the subject from the original (s 0.90). Not tried: patient, " in last
    else:
        assert last.startswith("Inconclusive: the attacker")


def test_weak_attackers_of_an_unprotected_toybox_are_inconclusive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mug = member(9048, "mug")  # one that the toybox draws no likeness of by itself
    shown = {"own": mug.subject(3).images, "held-out": mug.held_out(6), "mugs": class_pictures("mug", 16)}
    for name, images in shown.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            to_pil(image).save(tmp_path / name / f"{i}.png")
    quick = ("steps=2", "class_images=0", "pictures=4", "pictures_in_context=1", "solver_steps=5")
    arguments = [
        *("verify", "toybox", "--class-noun", "mug", "--attackers", "paper", "--context", "in a room", "-q"),
        *("--images", str(tmp_path / "own"), "--held-out", str(tmp_path / "held-out")),
        *("--class-pictures", str(tmp_path / "mugs"), "--output", str(tmp_path / "out")),
        *(word for value in quick for word in ("--set", value)),
    ]
    assert main([*arguments, "--fail-above", "0.3"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Inconclusive: the attacker paper is too weak."), last
    made = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert made["verdict"]["outcome"] == "inconclusive"
    assert made["control_of"] == "mug-9015 of the toybox"
    assert made["attackers"]["paper"]["control"]["s"]["value"] < 0.3
    assert 'class="note good"' not in (tmp_path / "out" / "certificate.html").read_text()


def test_misuse_is_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    (tmp_path / "settings.yaml").write_text("steps: 2\nslow:\n  stepps: 3\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "deep.yaml").write_text("[" * 20_000)
    wrong = {
        "did you mean lora-4": ["--attackers", "lora4"],
        "did you mean toybox": ["--encoder", "toybix"],
        "stepps is no setting": ["--set", "stepps=3"],
        "must be NAME=VALUE": ["--set", "steps"],
        "lora-4.rank is given twice": ["--set", "lora-4.rank=2", "--set", "lora-4.rank=3"],
        "lines NAME: VALUE": ["--settings", str(tmp_path / "list.yaml")],
        "nothing.yaml cannot be read": ["--settings", str(tmp_path / "nothing.yaml")],
        "deep.yaml cannot be read": ["--settings", str(tmp_path / "deep.yaml")],
        "is no preset": ["--preset", "small"],
        "--protective-output smile is unknown": ["--protective-output", "smile"],
        "--pattern has no effect": ["--protective-output", "erasure", "--pattern", "mark.png"],
        "needs --target-noun": ["--protective-output", "target"],
        "is no folder here": ["--protective-output", "erasure", "--classifier", "clip"],
        "pool_templates": ["--set", "pool_templates=a dog"],
        "gray-box needs pools": ["--attackers", "gray-box"],
        "belong together": ["--unrelated", str(home / "images")],
        "has no immunization.json": ["--sign"],
        "holds no subject": ["--unprotected", str(home / "images")],
        "3 of the 3 held-out pictures": ["--images", str(home / "held-out")],
        "needs --unprotected": ["--unprotected-held-out", str(home / "others")],
    }
    for named, arguments in wrong.items():
        assert main(words(home, new, *arguments)) == 2 - named.endswith("yaml cannot be read"), named
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert named in err
    assert not new.exists()
    own = ["--settings", str(tmp_path / "settings.yaml"), "--attackers", "slow"]
    assert main(words(home, new, *own)) == 2
    assert "settings.yaml: stepps is no setting" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert main(words(home, tmp_path / "full")) == 2
    assert "left alone" in capsys.readouterr().err
