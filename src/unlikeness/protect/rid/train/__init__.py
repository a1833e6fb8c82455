"""Training the network of `protect --method rid`."""
