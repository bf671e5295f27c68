"""`python -m atss`: the command `atss`, where it is not on the path."""

from atss_cli import main

if __name__ == "__main__":
    main()
