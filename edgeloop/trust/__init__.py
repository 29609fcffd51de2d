"""Who answers for a release and for a channel: a repository of The Update Framework (TUF) for each fleet.

:mod:`edgeloop.trust.names` has the names of roles and targets and imports nothing heavy; devices read it.
:mod:`edgeloop.trust.repository` makes, changes and checks metadata: the hub and the tool of publishers use it.
"""
