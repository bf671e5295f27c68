#!/usr/bin/env python
"""`atss tile` in a checkout."""

from atss.commands.tile import run

if __name__ == "__main__":
    run()
