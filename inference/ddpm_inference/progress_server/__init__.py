"""What a run tells of itself over HTTP: how far it is, its first samples as a picture, and how it ended."""
