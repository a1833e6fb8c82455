"""Copy the date, permissions and extended attributes of a file, as `cp -p` does."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["copy_attributes"]

_ACCESS_LIST = "system.posix_acl_access"
_USERS = "user."
"""Attributes of users and programs. Those of the system (security, capabilities) belong to one file."""
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"8BPS", b"icns")
"""First bytes of previews: an attribute with a preview would show the unprotected picture."""


def copy_attributes(source: Path, status: os.stat_result, copy: Path) -> None:
    """Give `copy` what `source` had when `status` was taken, before it was read.

    These are the times of the last change and the last access [ns]. On systems with permissions they are also
    those to read, write and execute; the owner may always read. On Linux they are also access lists and
    users' attributes, but for those that hold a picture. Attributes that the copy's file system does not
    support are left out. On Windows the copy of a read-only file is writable, because it could not be
    replaced otherwise.
    """
    if os.name == "posix":
        _copy_extended(source, copy)
        with contextlib.suppress(OSError):
            copy.chmod(stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IRUSR)
    with contextlib.suppress(OSError):
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_extended(source: Path, copy: Path) -> None:
    if not hasattr(os, "listxattr"):
        return
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        if name != _ACCESS_LIST and not name.startswith(_USERS):
            continue
        with contextlib.suppress(OSError):
            value = os.getxattr(source, name)
            if not any(beginning in value for beginning in _PICTURES):
                os.setxattr(copy, name, value)
