"""Sending a package: to a fleet as a release, or to one device for a trial."""
