"""Fixtures of the tests with real servers."""

from tests.support.s3 import bucket, reconnect, s3_server, start_s3, use_s3, versitygw

__all__ = ["bucket", "reconnect", "s3_server", "start_s3", "use_s3", "versitygw"]
