"""model-export: from a trained model to a package that devices can run."""
