"""An inference server whose speed follows published figures and whose words are prepared.

The machine (pure, no clock): `hardware` holds its numbers, `tables`, `profile` and `paces` read them; `costs`
says what one step takes; `sequence`, `batch` and `engine` make the steps; `virtual` runs them without waiting;
`calibrate` solves for what no data sheet says; `validation` holds it all against published measurements.

The words and the wire (pure): `answers`, `text` and `reply`; `request` with its table of fields, `openapi`, `wire`, and
`faults` with their framings and odd events.

The clock: `pacing` calls at a due time, `driver` puts an engine on it, `emission` writes or collects an answer,
`metrics` counts. HTTP: `server` and its parts. `run` is the process, `check` measures it.
"""
