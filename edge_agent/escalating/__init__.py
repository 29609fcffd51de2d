"""Escalating: hard inputs go to the hub's teacher, its answers to clients and, as labels, into the windows."""
