"""How the toybox's weights are made: `unlikeness toybox train vae|model|identity|classifier`."""
