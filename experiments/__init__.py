"""Every published figure, one command each: see README.md in this folder."""
