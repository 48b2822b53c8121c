"""`torpor chaos`: faults on purpose, against a platform of its own, and the proof that nothing was lost."""
