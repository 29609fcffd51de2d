"""Who vouches for what comes from the hub: the fleet's signed metadata, by the client of python-tuf.

What libraries of signatures cost in memory, a child process pays that ends when it has said what it found: see
`edge_agent.trust.child`. The agent keeps the rules that outlast a child: the versions of metadata that were seen
(`floors`), what the clock may decide (`judging`), and what was found of the latest document (`signed`).
"""
