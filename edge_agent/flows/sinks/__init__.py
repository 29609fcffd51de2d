"""The kinds of sinks, one a file; each passes the kit in tests/conformance/flows."""
