#!/usr/bin/env python
"""`atss report` in a checkout."""

from atss.commands.report import run

if __name__ == "__main__":
    run()
