"""Images with annotated boxes, one module for each format."""
