"""``python -m fpemu``: the command `fpemu`."""

from fpemu.cli import main

main()
