"""One file a format: how it is read to integers, and how it is written again with everything else it held.

All but HEIC need only Pillow and numpy. Pillow reduces 16-bit colour to 8 bits, but its own C decoders can be
asked for either byte of a 16-bit sample (`png.py`), and its libtiff unpacks any lossless TIFF when it is told
that rows are plain bytes (`tiff.py`). That keeps 16 bits exactly without a further package: imagecodecs,
which could also do it, weighs 80 MB installed and 84 ms at import, and tifffile needs it for LZW.
"""
