"""The host: the fork-server of an environment and the replicas that it forks (`docs/protocols.md`)."""
