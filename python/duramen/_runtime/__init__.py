"""The parts of `duramen.Runtime`: its port to the engine, the driver of all runs, and its calls by topic."""
