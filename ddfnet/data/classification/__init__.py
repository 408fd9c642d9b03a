"""Labelled images: their sources, and data sets in memory."""
