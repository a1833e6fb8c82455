"""The embedded world and model: a renderer of captioned scenes, the weights trained on it, and the recipes."""
