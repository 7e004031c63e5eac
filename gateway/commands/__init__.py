"""What the command `gateway` does: a group of commands in each module, and what all share in `console`.

`gateway.cli` joins them, and has the commands without a group.
"""
