"""``python -m kubelocal``: the command line without an installed script."""

from kubelocal.cli import main

main(prog_name="kubelocal")
