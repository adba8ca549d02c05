"""Durable execution as a library: workflows are `async def` functions, the truth is a journal in a store you own."""

from importlib.metadata import version as _version

__version__ = _version("duramen")
