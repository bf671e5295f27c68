#!/usr/bin/env python
"""`atss assignments` in a checkout."""

from atss.commands.assignments import run

if __name__ == "__main__":
    run()
