"""Bridges to other libraries, each in a module of its own. None of them is imported by ``import duramen``."""
