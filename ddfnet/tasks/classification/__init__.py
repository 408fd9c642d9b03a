"""Image classification: the Lightning module, its data and its evaluation."""
