"""cloud-hub: the service that merges a fleet's insights, retrains models and rolls them out."""
