"""Rules of orders and steps: no I/O, no clock, no logging, no protocol library."""
