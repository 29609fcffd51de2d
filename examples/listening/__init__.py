"""An agent that nobody calls: it listens to a folder of pictures and to an MQTT topic. See `__main__`."""
