#!/usr/bin/env python
"""`atss convert` in a checkout."""

from atss.commands.convert import run

if __name__ == "__main__":
    run()
