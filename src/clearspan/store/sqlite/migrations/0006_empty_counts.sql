-- Counters that came down to 0 by a changed trace stayed, and with them the name of an environment.
DELETE FROM trace_count WHERE traces = 0;
