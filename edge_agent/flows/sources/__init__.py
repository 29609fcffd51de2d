"""The kinds of sources, one a file; each passes the kit in tests/conformance/flows."""
