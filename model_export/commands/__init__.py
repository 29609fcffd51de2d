"""The commands, a file each. They only translate: options, results, errors and exit codes."""
