"""Samplers and schedules. `names` is the table that planning and hosts share; it needs the standard library only."""
