"""The whole loop on scikit-learn's handwritten digits: a fleet notices that its model has gone wrong and mends it."""
