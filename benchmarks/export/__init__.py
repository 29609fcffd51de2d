"""What model-export makes of a model, beside what others make of it; see ``__main__``."""
