"""The job configuration that keeps the driver's folders off the import path of workers."""

from __future__ import annotations

from ddpm_inference.ray_backend.ray_private import job_config_without_folders


def test_folders_that_ray_adds_do_not_reach_the_workers() -> None:
    config = job_config_without_folders()
    config._py_driver_sys_path.extend(["/work/of/a/user"])  # as ray.init does
    assert list(config._get_proto_job_config().py_driver_sys_path) == []
