"""Command ``ddfnet``: one file per command; each imports its libraries only when it is called."""
