"""Who answers for what devices are told: signed metadata, taken from people and signed by the hub itself."""
