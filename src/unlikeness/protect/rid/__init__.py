"""RID: protection in one forward pass of a network (arXiv 2412.09844)."""
