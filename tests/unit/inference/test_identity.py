"""The identity as a document: its versions, the fields that it leaves out, and how two of them are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import Hardware, Identity
from tests.support.storing import an_identity

# Written by the last release with identities of version 1.
VERSION_1 = Path(__file__).parents[2] / "fixtures" / "store_version_1"
FINGERPRINT_1 = "c59f2caeaf0dc5b102a1cbdba588fb51864555d27700c6631f1b6d891eed9e7e"
HARDWARE = Hardware(cpu_vendor="GenuineIntel", aten="AVX512", onednn="AVX512_CORE")


def with_fields(identity: Identity, **fields: object) -> Identity:
    return Identity.model_validate({**identity.model_dump(), **fields})


def test_version_1_keeps_its_json_and_its_fingerprint() -> None:
    text = (VERSION_1 / "job.json").read_text()
    identity = Identity.parse(text, "job.json")
    assert identity.version == 1
    assert identity.fingerprint == FINGERPRINT_1
    assert identity.model_dump_json(indent=1) + "\n" == text


@pytest.mark.parametrize("field", [{"threads": 2}, {"hardware": {"aten": "AVX2"}}])
def test_version_1_has_no_newer_fields(field: dict[str, object]) -> None:
    document = json.loads((VERSION_1 / "job.json").read_text())
    with pytest.raises(InvalidSpec, match="version 1 has neither"):
        Identity.parse(json.dumps({**document, **field}), "job.json")


def test_a_new_identity_has_version_2() -> None:
    assert an_identity().version == 2
    with pytest.raises(InvalidSpec, match="version"):
        Identity.parse(json.dumps({**an_identity().model_dump(), "version": 3}), "job.json")


def test_fields_at_their_default_are_left_out() -> None:
    identity = an_identity()
    assert not {"threads", "hardware"} & set(json.loads(identity.model_dump_json()))
    known = with_fields(identity, threads=2, hardware=Hardware(aten="AVX2"))
    document = json.loads(known.model_dump_json())
    assert (document["threads"], document["hardware"]) == (2, {"aten": "AVX2"})
    assert Identity.parse(json.dumps(document), "job.json") == known


def test_threads_and_hardware_are_part_of_the_fingerprint() -> None:
    identity = an_identity()
    assert with_fields(identity, threads=1, hardware=None).fingerprint == identity.fingerprint
    others = [
        with_fields(identity, threads=2),
        *(
            with_fields(identity, hardware=HARDWARE.model_copy(update=change))
            for change in ({}, {"aten": "AVX2"}, {"onednn": "AVX2"}, {"mkl": "MKL_CBWR=AVX2"}, {"cpu_vendor": "other"})
        ),
    ]
    assert len({each.fingerprint for each in (identity, *others)}) == 7


def test_differences_name_fields_that_are_left_out() -> None:
    identity = an_identity()
    assert with_fields(identity, threads=4).differences(identity) == ["threads: 4, there 1"]
    known = with_fields(identity, hardware=HARDWARE)
    assert known.differences(with_fields(identity, hardware={**HARDWARE.model_dump(), "aten": "AVX2"})) == [
        "hardware.aten: AVX512, there AVX2"
    ]
    assert "hardware.onednn: AVX512_CORE, there unknown" in known.differences(identity)
