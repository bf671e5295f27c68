"""The commands: `atss train` runs `train.py`, and so on (`atss_cli.py` lists them).

Each has `get_parser()`, `main(args)`, and `run(arguments=None)`, the whole command with its exit status.
"""
