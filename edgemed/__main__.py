"""`python -m edgemed`."""

from edgemed.cli.main import main

main()
