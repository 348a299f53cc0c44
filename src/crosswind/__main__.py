"""``python -m crosswind``: the command line without an installed script."""

from crosswind.cli import main

main(prog_name="crosswind")
