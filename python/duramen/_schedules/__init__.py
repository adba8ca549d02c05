"""When schedules fire and what becomes of it: decided here, from given facts, and carried out elsewhere."""
