"""edge-agent: the daemon that runs a model on a device, observes it and updates it safely."""
