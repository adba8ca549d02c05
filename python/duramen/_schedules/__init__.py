"""When schedules fire and what becomes of it: decided here, from facts that are given, and carried out elsewhere."""
