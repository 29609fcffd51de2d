"""Who may do what to a hub, and the record of who did."""
