"""Teachers: who answers what a device is not sure of. Kinds of them behind one port, each at its own desk."""
