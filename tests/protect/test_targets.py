"""Where protected pictures go: originals and other people's files are never written over."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.protect.folders import GOOD, contents, run
from tests.protect.test_tiles import write

from unlikeness.errors import UsageError
from unlikeness.protect.files.manifest import NAME
from unlikeness.protect.methods.noise import Noise


def test_an_output_inside_the_input_is_no_input(photos: Path, noise: Noise) -> None:
    output = photos / "protected"
    run(photos, output, noise)
    outcome = run(photos, output, noise)
    assert outcome.before == GOOD
    assert sorted(contents(output)) == sorted([*GOOD, NAME])


def test_an_output_that_is_the_input_is_refused_before_anything_happens(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    before = contents(photos)
    link = tmp_path / "link"
    link.symlink_to(photos)
    for output in (photos, link, photos / "deep" / ".."):
        with pytest.raises(UsageError, match="originals are never touched"):
            run(photos, output, noise)
    with pytest.raises(UsageError, match="originals are never touched"):
        run(photos / "a.png", photos, noise)
    with pytest.raises(UsageError, match="originals are never touched"):
        run([photos / "b.jpg", photos / "deep"], photos, noise)
    with pytest.raises(UsageError, match=r"a\.png exists"):
        run(photos / "deep" / "a.png", photos, noise)
    assert contents(photos) == before


def test_files_of_other_origin_in_the_output_are_not_overwritten(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "b.jpg").write_text("somebody's")
    with pytest.raises(UsageError, match=r"b\.jpg exists"):
        run(photos, output, noise)
    assert (output / "b.jpg").read_text() == "somebody's"


def test_a_manifest_vouches_only_for_the_files_that_it_names(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    output = tmp_path / "out"
    run(photos / "a.png", output, noise)
    (output / "b.jpg").write_text("somebody's")
    with pytest.raises(UsageError, match=r"b\.jpg exists, and by .* no earlier run has made it"):
        run(photos / "b.jpg", output, noise)
    assert (output / "b.jpg").read_text() == "somebody's"
    assert run(photos / "a.png", output, noise, seed=1).protected


def test_a_skipped_file_left_nothing_that_could_be_replaced(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    output = tmp_path / "out"
    assert run(photos / "not.png", output, noise).skipped
    (output / "not.png").write_text("somebody's")
    write(photos / "not.png", 40, 40)
    with pytest.raises(UsageError, match=r"not\.png exists"):
        run(photos / "not.png", output, noise)
    assert (output / "not.png").read_text() == "somebody's"


def test_several_folders_keep_their_names_and_a_clash_is_said(
    photos: Path, tmp_path: Path, noise: Noise
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other / "a.png", 32, 32, seed=8)
    outcome = run([photos, other], tmp_path / "out", noise)
    assert {entry.path for entry in outcome.protected} == {"other/a.png", *(f"photos/{n}" for n in GOOD)}
    with pytest.raises(UsageError, match=r"photos/a\.png and .*other/a\.png would both"):
        run([photos / "a.png", other / "a.png"], tmp_path / "out2", noise)
    assert not (tmp_path / "out2").exists()


def test_nothing_to_protect_and_an_output_that_is_a_file_are_usage_errors(
    tmp_path: Path, photos: Path, noise: Noise
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no pictures"):
        run(tmp_path / "empty", tmp_path / "out", noise)
    with pytest.raises(UsageError, match="does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out", noise)
    with pytest.raises(UsageError, match="is a file"):
        run(photos, photos / "a.png", noise)


def test_what_an_earlier_run_has_made_is_no_original(photos: Path, tmp_path: Path, noise: Noise) -> None:
    output = tmp_path / "out"
    run(photos, output, noise)
    before = contents(output)
    for named in (output / "deep", output / "deep" / "a.png"):
        with pytest.raises(UsageError, match=r"a\.png is a picture that .*; name the originals"):
            run(named, output, noise)
    assert contents(output) == before
    (output / "originals").mkdir()
    nested = write(output / "originals" / "new.png", 40, 40)  # below the output, but nobody has made it
    assert [entry.path for entry in run(nested.parent, output, noise).protected] == ["new.png"]
