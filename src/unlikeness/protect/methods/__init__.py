"""The protections, one file each."""
