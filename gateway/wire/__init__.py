"""Bytes to values and back: sans-I/O, bounded, fuzzable. pydicom and pynetdicom's codec stop here."""
