"""What benchmarks of serving share: a network, an agent as a process, a bare loop, a load generator."""
