"""One module a format: how it is read to integers, and written again with everything else that the file held.

All but HEIC need only Pillow and numpy, which keep 16 bits exactly too (`png_pixels`, `tiff_data`). The
package imagecodecs could do the same, but weighs 80 MB installed and 84 ms at import; tifffile needs it for
LZW.
"""
