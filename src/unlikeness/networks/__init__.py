"""Networks of known classes from a stranger's folder: bounds of configurations, weights, building."""
