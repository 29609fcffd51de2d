"""The cascade on this machine: a small model on three devices, a large one in the hub, and a world that moves."""
