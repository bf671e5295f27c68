#!/usr/bin/env python
"""`atss train` in a checkout."""

from atss.commands.train import run

if __name__ == "__main__":
    run()
