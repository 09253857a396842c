"""`python -m hew_loop` is the same program as `loop`."""

from hew_loop.cli import main

if __name__ == "__main__":
    main()
