"""Entry point of the ``maskdrop`` command and of ``python -m maskdrop``.

Spawned workers import this module again as their main module, so it imports nothing
until it is called.
"""


def main() -> None:
    from maskdrop.cli import app

    app()


if __name__ == "__main__":
    main()
