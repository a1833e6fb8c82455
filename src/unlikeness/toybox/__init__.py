"""The embedded world and model: a renderer of captioned scenes, weights trained on it, and their recipes."""
