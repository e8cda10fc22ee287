"""Stand-ins among the scorers of :mod:`espnet_spire.corpus.scorers`."""
