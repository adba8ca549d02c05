"""Durable execution as a library: workflows are `async def` functions, their truth is in a store you own."""

from importlib.metadata import version as _version

__version__ = _version("duramen")
