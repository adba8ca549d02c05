"""Starts one process of the demonstration; see `processes`."""

import sys

from .processes import main

main(sys.argv[1:])
