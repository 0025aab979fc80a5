"""Bytes on disk: checkpoints, the ledger, the reservoir, locks, legacy formats. Decides nothing."""
