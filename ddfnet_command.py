"""Entry point of the command ``ddfnet``.

``import ddfnet`` imports torch and registers the operators, which takes seconds. Where this module is loaded, the
package leaves that to whoever needs it, so that a wrong argument or a missing file is answered at once.
"""


def main() -> int:
    """Run the command; return its exit status."""
    from ddfnet.cli.main import main

    return main()
