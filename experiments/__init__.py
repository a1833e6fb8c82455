"""Research behind the settings: see README.md in this folder."""
