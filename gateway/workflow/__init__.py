"""One function per use case: synchronous, meeting its neighbours only through `ports`."""
