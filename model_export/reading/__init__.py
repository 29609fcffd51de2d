"""What can be done with a package that is there: audit, show, verify, hand it to another tool."""
