"""Rendered rooms: indoor scenes of real furniture models with exact depth."""
