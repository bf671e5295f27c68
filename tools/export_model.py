#!/usr/bin/env python
"""`atss export` in a checkout."""

from atss.commands.export import run

if __name__ == "__main__":
    run()
