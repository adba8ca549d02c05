"""The event loop of one run: deterministic, without clock or I/O, drained by whoever drives the run."""
