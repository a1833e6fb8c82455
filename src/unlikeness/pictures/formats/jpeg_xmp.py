"""XMP in the segments of a JPEG, without what `xmp` blanks out.

XMP that does not fit a segment goes on in others, anywhere in the file, as an extension: each part names the
digest of the whole, its length and the part's place (Adobe, XMP specification part 3, 1.1.3.1). The first
packet names the digest, too. Lengths never change here, digests do.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from unlikeness.pictures.budget import spend
from unlikeness.pictures.formats.xmp import blanked

__all__ = ["blanked_segments"]

_MAIN = b"http://ns.adobe.com/xap/1.0/\0"
_MORE = b"http://ns.adobe.com/xmp/extension/\0"
_DIGEST = 32
"""Hexadecimal digits of an MD5."""
_HEAD = len(_MORE) + _DIGEST + 8


def blanked_segments(bodies: Sequence[bytes]) -> tuple[list[bytes], set[str]]:
    """The bodies of APP1 segments, each of its length, and the notes of what was blanked out in them."""
    shown, notes = list(bodies), set[str]()
    digests: dict[bytes, bytes] = {}
    for digest, indices in _extensions(bodies).items():
        cleaned, found = blanked(b"".join(bodies[i][_HEAD:] for i in indices))
        if not found:
            continue
        notes |= found
        digests[digest] = hashlib.md5(cleaned, usedforsecurity=False).hexdigest().upper().encode()
        at = 0
        for i in indices:
            size = len(bodies[i]) - _HEAD
            numbers = bodies[i][len(_MORE) + _DIGEST : _HEAD]
            shown[i] = _MORE + digests[digest] + numbers + cleaned[at : at + size]
            at += size
    for i, body in enumerate(bodies):
        if body.startswith(_MAIN):
            cleaned, found = blanked(body[len(_MAIN) :])
            notes |= found
            for old, new in digests.items():
                spend(copied=len(cleaned))
                cleaned = cleaned.replace(old, new)
            shown[i] = _MAIN + cleaned
    return shown, notes


def _extensions(bodies: Sequence[bytes]) -> dict[bytes, list[int]]:
    """By digest, the segments of each extension in the order of their places."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    for i, body in enumerate(bodies):
        if body.startswith(_MORE) and len(body) > _HEAD:
            (place,) = struct.unpack_from(">I", body, _HEAD - 4)
            found.setdefault(body[len(_MORE) : len(_MORE) + _DIGEST], []).append((place, i))
    return {digest: [i for _, i in sorted(parts)] for digest, parts in found.items()}
