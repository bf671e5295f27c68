#!/usr/bin/env python
"""`atss study` in a checkout."""

from atss.commands.study import run

if __name__ == "__main__":
    run()
