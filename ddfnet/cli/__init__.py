"""The command ``ddfnet``: one module a subcommand, each of which imports what it needs only when it is called."""
