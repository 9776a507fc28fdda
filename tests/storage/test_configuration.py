"""Settings of object stores: which of option, variable, file and default applies, and errors for invalid settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_trainer import ImageFolder, ModelSpec, Run
from model_trainer.errors import ConfigError
from model_trainer.storage import configuration
from model_trainer.storage.configuration_settings import SETTINGS
from model_trainer.storage.objects.urls import check_url

SETTING = {setting.name: setting for setting in SETTINGS}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Changes to an empty folder, without any configuration."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MODEL_TRAINER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODEL_TRAINER_STORAGE_OPTIONS", "")  # monkeypatch then undoes what the test sets
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of-the-user"))
    (tmp_path / "here").mkdir()
    (tmp_path / "of-the-user").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    configuration.current.cache_clear()
    yield tmp_path / "here"
    configuration.current.cache_clear()


def source_of(name: str) -> str:
    return next(value.source for value in configuration.all_values() if value.setting.name == name)


def problem_of(text: str) -> str:
    Path("model-trainer.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        configuration.current()
    return str(caught.value)


def test_without_any_configuration_the_defaults_apply() -> None:
    assert configuration.current() == configuration.Configuration()
    assert {value.source for value in configuration.all_values()} == {"default"}


def test_a_file_in_the_current_folder_sets_values() -> None:
    Path("model-trainer.toml").write_text(
        'output_dir = "s3://results/runs"\n[s3]\nprofile = "research"\nregion = "eu-central-1"\nanonymous = true\n'
        '[cache]\nfolder = "~/cache"\nsize = "200 GB"\n'
    )
    current = configuration.current()
    assert (current.output_dir, current.profile, current.region) == ("s3://results/runs", "research", "eu-central-1")
    assert (current.anonymous, current.cache_bytes) == (True, 200 * 10**9)
    assert current.cache_folder == os.path.expanduser("~/cache")
    assert source_of("s3.region") == "model-trainer.toml line 4"


def test_the_file_in_the_current_folder_overrides_that_of_the_user(folder: Path) -> None:
    user_file = folder.parent / "of-the-user" / "model-trainer.toml"
    user_file.write_text('[s3]\nregion = "us-west-2"\nprofile = "mine"\n')
    Path("model-trainer.toml").write_text('[s3]\nregion = "eu-west-1"\n')
    assert (configuration.current().region, configuration.current().profile) == ("eu-west-1", "mine")
    assert source_of("s3.profile") == f"{user_file} line 3"


def test_a_file_named_by_the_variable_replaces_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model-trainer.toml").write_text('[s3]\nregion = "eu-west-1"\n')
    (folder / "other.toml").write_text('[s3]\nprofile = "other"\n')
    monkeypatch.setenv("MODEL_TRAINER_CONFIG", "other.toml")
    assert (configuration.current().region, configuration.current().profile) == ("", "other")


def test_a_variable_overrides_the_file_and_an_option_overrides_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("model-trainer.toml").write_text('[s3]\nregion = "eu-west-1"\n')
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert (configuration.current().region, source_of("s3.region")) == ("eu-west-2", "AWS_REGION")
    configuration.set_by_option(SETTING["s3.region"], "eu-west-3")
    assert (configuration.current().region, source_of("s3.region")) == ("eu-west-3", "--region")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    assert source_of("s3.endpoint") == "default"


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("5", 5), ('"20 GB"', 20 * 10**9), ('"1.5TiB"', 3 << 39), ('"10 mb"', 10**7), ("0", 0), ('"300"', 300)],
)
def test_a_size_has_a_unit_or_is_in_bytes(text: str, num_bytes: int) -> None:
    Path("model-trainer.toml").write_text(f"[cache]\nsize = {text}\n")
    assert configuration.current().cache_bytes == num_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[s3]\n\nregon = "x"\n', r"model-trainer.toml line 3: s3.regon is not a setting. Did you mean 's3.region'?"),
        ('region = "x"\n', "model-trainer.toml line 1: region is not a setting. Did you mean 's3.region'?"),
        (
            "[chace]\nsize = 1\n",
            "line 1: [chace] is not a table of this file. Did you mean 'cache'?",
        ),
        ("[s3]\nregion = 5\n", 'line 2: s3.region should be text in quotes, such as "research", got 5.'),
        ('s3.anonymous = "perhaps"\n', "line 1: s3.anonymous should be true or false, got 'perhaps'."),
        ('[cache]\nsize = "20 Gb of"\n', 'line 2: cache.size should be a size, such as "200 GB", or a number of bytes'),
        ("[cache]\nsize = -1\n", "line 2: cache.size should be a size"),
        ("[cache]\nsize = true\n", "line 2: cache.size should be a size"),
        ('cache = {size = 1, places = "x"}\n', "line 1: cache.places is not a setting."),
        ("cache = 5\n", 'line 1: cache is a table. Write [cache], and below it lines such as: size = "200 GB"'),
        ('[s3]\nendpoint = "minio"\n', 's3.endpoint should be a URL of a server, such as "https://minio.example.org'),
        ("[s3]\nretry_seconds = -1\n", "line 2: s3.retry_seconds should be seconds, 0 to 86400, got -1."),
        ('[s3]\nbucket = "s3://My_Photos"\n', 'line 2: s3.bucket should be the name of a bucket, such as "photos"'),
        ('[cache]\nfolder = "s3://a/b"\n', "line 2: cache.folder should be a folder on the local disk"),
        ("[s3]\nregion = eu\n", "model-trainer.toml line 2 is not TOML: Invalid value."),
    ],
)
def test_an_error_in_the_file_is_reported_with_its_line(text: str, message: str) -> None:
    assert message in problem_of(text)


def test_secrets_in_the_file_are_refused_without_showing_them() -> None:
    problem = problem_of('[s3]\nsecret_access_key = "hidden-value"\n')
    assert "line 2: s3.secret_access_key is not a setting: credentials do not belong in this file." in problem
    assert "hidden-value" not in problem
    problem = problem_of('[s3]\nendpoint = "http://me:hidden-value@minio:9000"\n')
    assert "should be a URL without user and password" in problem
    assert "hidden-value" not in problem


def test_an_invalid_variable_and_a_missing_file_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TRAINER_CACHE_SIZE", "much")
    with pytest.raises(ConfigError, match="`MODEL_TRAINER_CACHE_SIZE` should be a size, such as"):
        configuration.current()
    monkeypatch.setenv("MODEL_TRAINER_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigError, match="`MODEL_TRAINER_CONFIG` names nowhere.toml, which does not exist."):
        configuration.current()


def test_a_run_without_output_dir_writes_to_the_configured_one() -> None:
    Path("model-trainer.toml").write_text('output_dir = "s3://results/runs"\n')
    run = Run(spec=ModelSpec.named("mobilenet_v1"), train_data=ImageFolder("data"))
    assert run.output_dir == "s3://results/runs"
    assert Run(spec=run.spec, train_data=run.train_data, output_dir="here").output_dir == "here"
    assert run.to_dict()["output_dir"] == "s3://results/runs"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("s3:/photos/train", "s3://photos/train"),
        ("S3://photos/train", "s3://photos/train"),
        ("s3//photos/train", "s3://photos/train"),
        ("s3a://photos/train", "s3://photos/train"),
        ("s3:photos/train", "s3://photos/train"),
        ("gcs://photos/train", "gs://photos/train"),
        ("s3:///photos/train", "s3://photos/train"),
    ],
)
def test_declaring_a_mistyped_url_raises_an_error_with_the_right_one(path: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"`path` .*Did you mean {right}\?"):
        ImageFolder(path)
    spec, data = ModelSpec.named("mobilenet_v1"), ImageFolder("data")
    with pytest.raises(ConfigError, match=rf"`output_dir` .*Did you mean {right}\?"):
        Run(spec=spec, train_data=data, output_dir=path)
    with pytest.raises(ConfigError, match=rf"`weights` .*Did you mean {right}\?"):
        Run(spec=spec, train_data=data, weights=path)


def test_a_path_with_three_slashes_is_in_the_configured_bucket() -> None:
    Path("model-trainer.toml").write_text('[s3]\nbucket = "photos"\n')
    assert ImageFolder("s3:///train").path == "s3://photos/train"


def test_local_paths_are_unchanged() -> None:
    for path in ("data/train", "/data/s3", "s3", "s3-copy/train", "./s3:/x", "C:\\data", "memory://box/train"):
        assert ImageFolder(path).path == path


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("https://photos.s3.eu-central-1.amazonaws.com/train", "s3://photos/train"),
        ("https://s3.amazonaws.com/photos/train?X-Amz-Signature=0123", "s3://photos/train"),
        ("s3://photos.s3.amazonaws.com/train", "s3://photos/train"),
        ("arn:aws:s3:::photos/train", "s3://photos/train"),
    ],
)
def test_an_https_address_or_arn_of_aws_is_refused_with_the_right_url(path: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"Did you mean {right}\?") as caught:
        check_url(path)
    assert "0123" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://key:hidden@photos/train", "s3a://key:hidden@photos", "s3:/key:hidden@photos"])
def test_credentials_in_a_url_are_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_url(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("path", ["s3:/results/x", "S3://results", ""])
def test_an_invalid_output_dir_in_the_file_is_reported_with_its_line(path: str) -> None:
    assert "line 1: output_dir should be a folder, or a URL in an object store" in problem_of(f'output_dir = "{path}"')


@pytest.mark.parametrize("endpoint", ["http://h:99999", "http://h:abc", "http://[::1", "minio:9000"])
def test_an_endpoint_that_is_not_a_url_is_reported_with_its_line(endpoint: str) -> None:
    assert "line 2: s3.endpoint should be a URL of a server" in problem_of(f'[s3]\nendpoint = "{endpoint}"')


@pytest.mark.parametrize("endpoint", ["key:hidden@minio:9000", "http://h/?sig=hidden", "http://key:hidden@[h"])
def test_secrets_in_an_endpoint_are_not_shown(endpoint: str) -> None:
    assert "hidden" not in problem_of(f'[s3]\nendpoint = "{endpoint}"')


@pytest.mark.parametrize(
    "text",
    [
        f"x = {'[' * 100_000}",
        f"[cache]\nsize = {'9' * 5000}",
        f'[cache]\nsize = "{"9" * 400} TB"',
        '[cache]\nsize = "_ GB"',
        '[cache]\nfolder = ""',
        '[cache]\nfolder = "a\\u0000b"',
        f"# {'x' * 2_000_000}",
    ],
    ids=["nested", "digits", "size", "no digits", "no folder", "NUL", "huge"],
)
def test_a_hostile_file_raises_an_error_that_names_it(text: str) -> None:
    assert "model-trainer.toml" in problem_of(text)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_instead_of_the_file_does_not_block() -> None:
    os.mkfifo("model-trainer.toml")
    with pytest.raises(ConfigError, match="is not a file"):
        configuration.current()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no owners of files")
def test_an_endpoint_in_a_file_that_others_may_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("model-trainer.toml")
    path.write_text('[s3]\nendpoint = "https://elsewhere.example"\n')
    path.chmod(0o666)
    with pytest.raises(ConfigError, match=r"line 2 sets the endpoint .* and any user may write to this file"):
        configuration.current()
    path.chmod(0o644)
    configuration.current.cache_clear()
    assert configuration.current().endpoint == "https://elsewhere.example"
    path.chmod(0o666)
    monkeypatch.setenv("MODEL_TRAINER_CONFIG", str(path))  # an explicitly named file is trusted
    assert configuration.current().endpoint == "https://elsewhere.example"
