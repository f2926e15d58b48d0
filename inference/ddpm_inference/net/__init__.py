"""Network clients for checkpoints and results: HTTPS downloads, S3 connections, and the SSRF block list of both."""
