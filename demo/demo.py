#!/usr/bin/env python
"""`atss predict` in a checkout."""

from atss.commands.predict import run

if __name__ == "__main__":
    run()
