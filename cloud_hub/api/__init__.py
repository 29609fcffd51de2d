"""The hub's HTTP interface: routers that translate, and nothing else."""
