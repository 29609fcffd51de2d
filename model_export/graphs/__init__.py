"""What a graph is and how it is changed: its head, its outputs, its opset; and what it gives and costs."""
