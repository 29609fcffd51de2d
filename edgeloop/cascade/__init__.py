"""The cascade: which answers of a device's model are sent to the hub's teacher, and with what probability."""
