"""Reading and writing photographs, losing nothing: size, EXIF, ICC, XMP, alpha, bit depth, format.

picture = open_picture("cat.jpg")
edit = Edit(picture, budget=8)
edit.write(0, 0, protect(picture.rgb))
save_picture(picture, edit, "protected/cat.jpg")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unlikeness import looked_up

if TYPE_CHECKING:
    from unlikeness.pictures.edit import Edit
    from unlikeness.pictures.finding import find_pictures
    from unlikeness.pictures.picture import Picture
    from unlikeness.pictures.reading import open_picture
    from unlikeness.pictures.writing import save_picture

__all__ = ["Edit", "Picture", "find_pictures", "open_picture", "save_picture"]

# Before Pillow is loaded: blocks of this size go back to the system with their image, while C libraries keep
# those of 16 MiB, which Pillow takes otherwise.
os.environ.setdefault("PILLOW_BLOCK_SIZE", "64M")

__getattr__ = looked_up(
    __name__,
    {
        "edit": ("Edit",),
        "finding": ("find_pictures",),
        "picture": ("Picture",),
        "reading": ("open_picture",),
        "writing": ("save_picture",),
    },
)
