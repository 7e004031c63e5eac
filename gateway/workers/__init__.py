"""Reads on several processes, changes in one (ADR 9): `workers: N` in the configuration.

`supervisor` is the main process's side: it starts the workers, does what they ask for and restarts those that die.
`process` is a worker: a DICOM listener with a store that it can only read. `channel` is the socket between the two,
and `messages` what is said over it.
"""
