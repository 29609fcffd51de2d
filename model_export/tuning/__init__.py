"""Looking for the variant that is best at one thing and still right: recipes tried, measured and confirmed."""
