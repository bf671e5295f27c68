#!/usr/bin/env python
"""`atss check` in a checkout."""

from atss.commands.check import run

if __name__ == "__main__":
    run()
