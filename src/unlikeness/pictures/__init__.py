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
    from unlikeness.pictures.edit import Edit, save_picture
    from unlikeness.pictures.finding import find_pictures
    from unlikeness.pictures.picture import Picture, open_picture

__all__ = ["Edit", "Picture", "find_pictures", "open_picture", "save_picture"]

# Set before Pillow is loaded: the system gets blocks of this size back with their image. C libraries keep
# blocks of 16 MiB, Pillow's default.
os.environ.setdefault("PILLOW_BLOCK_SIZE", "64M")

__getattr__ = looked_up(
    __name__,
    {
        "edit": ("Edit", "save_picture"),
        "finding": ("find_pictures",),
        "picture": ("Picture", "open_picture"),
    },
)
