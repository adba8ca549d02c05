"""Driving one run: what its handler asks for is carried out here, its steps, waits and transactions."""
