"""Guided depth upsampling: the Lightning module, its metrics and its evaluation."""
