"""Which files count as pictures, in which order; and nothing can trap the search."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unlikeness.errors import UsageError
from unlikeness.pictures import find_pictures
from unlikeness.pictures.finding import find
from unlikeness.pictures.kinds import announced, reason, summary


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_folders_recursively_sorted_without_hidden_and_other_files(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.JPG",
        "a.png",
        "notes.txt",
        ".c.png",
        ".d/e.png",
        "sub/z.heic",
        "sub/deep/y.tiff",
        "x.jfi",
        "._b.JPG",
        "@eaDir/b.JPG/SYNOPHOTO_THUMB_M.jpg",
        "$RECYCLE.BIN/deleted.jpg",
    )
    found = find_pictures([tmp_path])
    assert [root for root, _ in found] == [tmp_path] * 5
    names = [str(file.relative_to(tmp_path)) for _, file in found]
    assert names == ["a.png", "b.JPG", "x.jfi", "sub/z.heic", "sub/deep/y.tiff"]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "picture.dat", ".hidden.png")
    files = [tmp_path / "picture.dat", tmp_path / ".hidden.png"]
    assert find_pictures(files) == [(tmp_path, file) for file in files]


def test_each_file_once_under_the_first_root(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.png", "b.png")
    found = find_pictures([tmp_path, tmp_path / "sub", tmp_path / "sub" / "a.png"])
    assert found == [(tmp_path, tmp_path / "b.png"), (tmp_path, tmp_path / "sub" / "a.png")]


def test_loops_of_links_end_and_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "elsewhere")
    names = [file.name for _, file in find_pictures([tmp_path / "in"])]
    assert names == ["a.png", "b.png"]


def test_the_output_folder_inside_the_input_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "protected/a.png")
    found = find_pictures([tmp_path], exclude=[tmp_path / "protected", tmp_path / "not there yet"])
    assert [file for _, file in found] == [tmp_path / "a.png"]


def test_pipes_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert find_pictures([tmp_path]) == []


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone.* does not exist"):
        find_pictures([tmp_path / "gone"])


JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0"
RAF = b"FUJIFILMCCD-RAW 0201"


def test_kinds_that_cannot_be_protected_are_found_by_name_and_by_content(tmp_path: Path) -> None:
    touch(tmp_path, "1.CR2", "2.dng", "3.nef", "a.jxl", "b.psd", "c.gif")
    touch(tmp_path, "d.mpo", "e.insp", "f.mov", "g.raf", "h.txt", "i.xmp")
    (tmp_path / "j").write_bytes(RAF)
    (tmp_path / "k.old").write_bytes(b"8BPS\0\1" + bytes(60))
    (tmp_path / "l.old").write_bytes(bytes(64))
    found = find([tmp_path])
    assert found.pictures == []
    assert [(file.name, kind) for _, file, kind in found.others] == [
        ("1.CR2", "RAW"),
        ("2.dng", "RAW"),
        ("3.nef", "RAW"),
        ("a.jxl", "JXL"),
        ("b.psd", "PSD"),
        ("c.gif", "GIF"),
        ("d.mpo", "MPO"),
        ("e.insp", "INSP"),
        ("f.mov", "video"),
        ("g.raf", "RAW"),
        ("j", "RAW"),
        ("k.old", "PSD"),
    ]
    assert summary((file, kind) for _, file, kind in found.others) == (
        "11 files cannot be protected: 5 RAW (CR2, DNG, NEF, RAF), 2 PSD, 1 GIF, 1 INSP, 1 JXL, 1 MPO; "
        "export them as JPEG, PNG or TIFF first; 1 video is passed over, also unprotected"
    )
    assert summary([]) is None
    assert reason(Path("j"), "RAW").startswith("j: RAW files (by its content) cannot be protected")


def test_pictures_under_other_names_are_found_by_their_first_bytes(tmp_path: Path) -> None:
    heads = {
        "a.mpo": JPEG,
        "b": JPEG,
        "c.insp": b"\xff\xd8\xff\xe1",
        "d.jpg_large": b"\xff\xd8\xff\xdb",
        "e.gif": b"\x89PNG\r\n\x1a\n",
        "f.photo": b"RIFF\0\0\0\0WEBPVP8 ",
        "g.dat": b"\0\0\0\x18ftypheic",
        "h.bin": b"\0\0\0\x18ftypavif",
        "i.2023": JPEG,
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head)
    # What is said to be something else, what is not beyond doubt, and what cannot be opened.
    (tmp_path / "j.txt").write_bytes(JPEG)
    (tmp_path / "k").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "l").write_bytes(b"\xff\xd8\xff\0")
    (tmp_path / "m.mid").write_bytes(b"RIFF\0\0\0\0WAVE")
    (tmp_path / "n.xyz").write_bytes(b"\0\0\0\x18ftypisom")
    os.mkfifo(tmp_path / "o")
    found = find([tmp_path])
    assert [file.name for _, file in found.pictures] == list(heads)
    assert found.others == []


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"II*\0\x10\0\0\0CR\x02\0", "RAW"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "RAW"),
        (b"IIRO\x08\0\0\0", "RAW"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2"),
        (b"GIF89a", "GIF"),
        (b"gimp xcf v011", "XCF"),
        (b"II*\0\x08\0\0\0", None),
        (b"BM", None),
        (b"", None),
    ],
)
def test_first_bytes_name_a_kind_only_beyond_doubt(head: bytes, kind: str | None) -> None:
    assert announced(head) == kind


def test_a_file_named_outright_is_no_less_raw(tmp_path: Path) -> None:
    touch(tmp_path, "a.dng", "b.mov", "c.txt")
    found = find([tmp_path / "a.dng", tmp_path / "b.mov", tmp_path / "c.txt"])
    assert [file.name for _, file in found.pictures] == ["c.txt"]
    assert [kind for _, _, kind in found.others] == ["RAW", "video"]


def test_links_to_folders_hide_no_real_place(tmp_path: Path) -> None:
    touch(tmp_path, "in/real/a.png", "in/real/deep/b.png", "other/c.png", "other/back/d.png")
    (tmp_path / "in" / "first").symlink_to(tmp_path / "in" / "real")
    (tmp_path / "in" / "album").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "other" / "beyond").symlink_to(tmp_path / "far")
    touch(tmp_path, "far/e.png")

    def names(*roots: str) -> list[str]:
        return [
            file.relative_to(tmp_path).as_posix() for _, file in find_pictures([tmp_path / r for r in roots])
        ]

    alone = [
        "in/real/a.png",
        "in/real/deep/b.png",
        "in/album/c.png",
        "in/album/back/d.png",
        "in/album/beyond/e.png",
    ]
    assert names("in") == alone
    both = ["in/real/a.png", "in/real/deep/b.png", "other/c.png", "other/back/d.png", "other/beyond/e.png"]
    assert sorted(names("in", "other")) == sorted([*both[:4], "in/album/beyond/e.png"])
