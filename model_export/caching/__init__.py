"""What is made once: results kept by the content that they are made of."""
