"""Which kinds of store a test of the command line runs on."""

import pytest

on_sqlite = pytest.mark.parametrize("shop_url", ["sqlite"], indirect=True)
"""For tests that have nothing to ask of a store, or bring their own."""
