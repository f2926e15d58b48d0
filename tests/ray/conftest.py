"""Fixtures of the tier where real servers run."""

from tests.support.s3 import bucket, reconnect, s3_server, start_s3, use_s3, versitygw

__all__ = ["bucket", "reconnect", "s3_server", "start_s3", "use_s3", "versitygw"]
