"""Files: saved models, writing that leaves the old file or the new one, digests, YAML with line numbers."""
