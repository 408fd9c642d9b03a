"""Scenes: images with their depth maps, one module for each source."""
