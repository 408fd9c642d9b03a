"""Object detection: the Lightning module and its evaluation."""
