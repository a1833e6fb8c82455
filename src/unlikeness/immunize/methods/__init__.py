"""The immunizations, one file each. `settings` holds the settings of all, and loads no torch."""
