"""From a source, data and options to a package on disk: the steps, and what a build tells."""
