"""Checkpoints in one file, in the layout that their authors trained in, as model pages offer them.

- `kinds`: what a file holds, read from its header before torch and before any weight;
- `carried`: configurations and the tokenizer of CLIP, which such a file lacks;
- `opening`: the parts of the model, by diffusers' own conversion of names;
- `writing`: a changed denoiser back into a copy of the file.
"""
