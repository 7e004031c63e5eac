"""A conformance suite of worklist matching as files, runnable against any SCP: see README.md beside this file."""
