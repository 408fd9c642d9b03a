"""Demonstration on one page: an upsampled depth map, three small networks, and the filters that DDF predicts."""
