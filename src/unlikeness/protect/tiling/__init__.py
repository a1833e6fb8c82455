"""Pictures of any size, cut into square tiles."""
