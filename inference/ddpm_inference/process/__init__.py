"""The driver as an operating system process: signals, a supervising parent, its log, and its memory limit."""
