"""Scenes, images with their depth maps: one module per source, and the protocols that measure on them."""
