"""How flags and environment become a Job."""

from __future__ import annotations

import json

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.flags import JOB_VARIABLE, convert_parser, job_from, nested, sample_parser
from ddpm_inference.job import Job, ModelRequest


def job(*arguments: str, environment: str | None = None) -> Job:
    parser = sample_parser()
    variables = {} if environment is None else {JOB_VARIABLE: environment}
    return job_from(parser, parser.parse(arguments), variables)


GUIDE = [
    *("--model_path", "net.pt", "--model_name", "SimpleUnet", "--downs", "8", "16", "32", "--time_emb_dim", "4"),
    *("--img_size", "28", "--n_samples", "7", "--timesteps", "500", "--device", "cpu"),
    *("--num_gpus_per_task", "0.5", "--out_dir", "there"),
]


def test_the_flags_of_the_guide_set_their_fields() -> None:
    parsed = job(*GUIDE)
    assert parsed.model.uri == "net.pt"
    assert (parsed.model.name, parsed.model.downs, parsed.model.time_emb_dim, parsed.model.img_size) == (
        "SimpleUnet",
        (8, 16, 32),
        4,
        28,
    )
    assert (parsed.n_samples, parsed.sampler.timesteps, parsed.device) == (7, 500, "cpu")
    assert parsed.resources.num_gpus_per_task == 0.5
    assert parsed.output.uri == "there"


def test_the_defaults_are_those_of_the_guide() -> None:
    parsed = job("--model_path", "net.pt")
    assert (parsed.n_samples, parsed.device, parsed.output.uri) == (100, "auto", "./out")
    assert parsed.resources.num_gpus_per_task == 0.25
    assert sample_parser().parse(["--model_path", "x"]).ray_address == "auto"


def test_flags_can_be_written_with_dashes() -> None:
    assert job(*(word.replace("_", "-") if word.startswith("--") else word for word in GUIDE)) == job(*GUIDE)
    parser = sample_parser()
    dashed = parser.parse(["--model-path=a_b-c", "--ray-address", "ray://a-b:1", "--dry-run"])
    assert (dashed.ray_address, dashed.dry_run) == ("ray://a-b:1", True)
    assert job_from(parser, dashed, {}).model.uri == "a_b-c"


def test_fields_without_a_flag_stay_unset() -> None:
    assert job("--model_path", "x").model_fields_set == {"model", "output"}
    assert job("--model_path", "x", "--compile").model_fields_set == {"model", "output", "compile"}


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ("--n_samples 0", "--n_samples"),
        ("--n_samples many", "--n_samples"),
        ("--num_cpus_per_task -1", "--num_cpus_per_task"),
        ("--downs 8 1", "--downs"),
        ("--seed -1", "--seed"),
        ("--eta 2", "--eta"),
        ("--sampler euler", "--sampler"),
        ("--out_dir a --output_uri b", "--output_uri"),
        ("--no_such_flag", "--no_such_flag"),
        ("--n_sample 3", "--n_sample"),
    ],
)
def test_an_invalid_flag_is_named(arguments: str, flag: str) -> None:
    with pytest.raises(InvalidSpec, match=flag):
        job("--model_path", "x", *arguments.split())


@pytest.mark.parametrize("flag", ["--out_dir", "--output_uri", "--out-dir"])
def test_the_flag_that_was_given_is_named(flag: str) -> None:
    with pytest.raises(InvalidSpec, match=f"^{flag.replace('-', '_').replace('__', '--')} must not be empty$"):
        job("--model_path", "x", flag, "")
    with pytest.raises(InvalidSpec, match=f"^{flag.replace('-', '_').replace('__', '--')} a contradicts"):
        job(f"{flag}=a", environment=json.dumps(DOCUMENT))


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("--n_sample 3", "--n_samples"),
        ("--n-sample=3", "--n_samples"),
        ("-n_samples 3", "--n_samples"),
        ("--sampler dpmp", "dpmpp"),
        ("--sampler DDIM", "ddim"),
        ("--schedule cosin", "cosine"),
        ("--model_name unet", "Unet"),
        ("convertt a.pt b", "convert"),
    ],
)
def test_a_typo_gets_a_suggestion(arguments: str, suggestion: str) -> None:
    with pytest.raises(InvalidSpec, match=f"; did you mean {suggestion}\\?$"):
        job("--model_path", "x", *arguments.split())


def test_an_unknown_word_without_a_likeness_gets_no_suggestion() -> None:
    with pytest.raises(InvalidSpec, match=r"^unknown arguments: --xyzzy$"):
        job("--model_path", "x", "--xyzzy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--eta 0.5", "--eta has no effect without --sampler ddim"),
        ("--eta 0.5 --sampler dpmpp", "--eta has no effect with the sampler dpmpp: it is of ddim"),
        ("--variance small --sampler ddim", "--variance has no effect with the sampler ddim: it is of ddpm"),
    ],
)
def test_a_flag_that_the_sampler_does_not_use_is_rejected(arguments: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        job("--model_path", "x", *arguments.split())


def test_a_flag_that_the_sampler_uses_is_accepted() -> None:
    assert job("--model_path", "x", "--sampler", "ddim", "--eta", "0.5").sampler.eta == 0.5
    assert job("--model_path", "x", "--variance", "small").sampler.variance == "small"


def test_the_checkpoint_can_be_pinned() -> None:
    digest = "0123456789abcdef" * 4
    assert job("--model_path", "x", "--sha256", digest.upper()).model.sha256 == digest
    with pytest.raises(InvalidSpec, match="--sha256 must be 64 characters of 0-9 and a-f"):
        job("--model_path", "x", "--sha256", digest[1:])


def test_help_names_the_checkpoint_as_the_default_of_its_schedule() -> None:
    text = " ".join(sample_parser().format_help().split())
    for flag, default in (("--timesteps", "1000"), ("--schedule", "linear"), ("--variance", "large")):
        described = text.rpartition(f" {flag} ")[2].partition(" --")[0]
        assert f"(default: the checkpoint's, else {default})" in described


def test_model_path_is_required() -> None:
    with pytest.raises(InvalidSpec, match="--model_path is missing"):
        job("--n_samples", "3")


DOCUMENT = {"model": {"uri": "s3://bucket/net"}, "n_samples": 5, "output": {"uri": "s3://bucket/out"}}


def test_the_environment_may_hold_the_job() -> None:
    assert job(environment=json.dumps(DOCUMENT)) == Job.model_validate(DOCUMENT)


def test_flags_must_not_contradict_the_job_in_the_environment() -> None:
    text = json.dumps(DOCUMENT)
    assert job("--n_samples", "5", "--seed", "0", environment=text) == Job.model_validate(DOCUMENT)
    with pytest.raises(InvalidSpec, match=f"--seed 1 contradicts the job in {JOB_VARIABLE}, which says 0"):
        job("--seed", "1", environment=text)
    with pytest.raises(InvalidSpec, match="--model_path"):
        job("--model_path", "other", environment=text)


@pytest.mark.parametrize("text", ["", "{", '{"n_samples": 5}', json.dumps({**DOCUMENT, "colour": "red"})])
def test_an_invalid_job_in_the_environment_is_rejected(text: str) -> None:
    with pytest.raises(InvalidSpec, match=JOB_VARIABLE):
        job(environment=text)


def test_convert_takes_architecture_and_schedule() -> None:
    parser = convert_parser()
    given = parser.parse(["in.pt", "out", "--model-name", "Unet", "--downs", "8", "16", "--schedule", "sigmoid"])
    assert nested(parser.fields_given(given)) == {
        "model": {"name": "Unet", "downs": [8, 16]},
        "trained": {"name": "sigmoid"},
    }


@pytest.mark.parametrize(("word", "applied"), [("yes", True), ("no", False)])
def test_attention_norm_is_yes_or_no_in_both_commands(word: str, applied: bool) -> None:
    assert job("--model_path", "net.pt", "--attention_norm", word).model.attention_norm is applied
    parser = convert_parser()
    fields = nested(parser.fields_given(parser.parse(["a.pt", "b.safetensors", "--attention_norm", word])))
    assert ModelRequest.model_validate({"uri": "a.pt", **fields["model"]}).attention_norm is applied
