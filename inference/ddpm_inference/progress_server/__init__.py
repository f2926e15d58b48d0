"""HTTP server of a running job: its progress, a thumbnail of its first samples, and its outcome."""
