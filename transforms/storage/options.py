"""Where the keys and addresses of object stores come from: Beam's flags, the environment, the files of AWS's tools.

Beam's flags reach every worker of every runner, so they come first. Nothing is read before an object is asked for.
"""

from __future__ import annotations

import configparser
import json
import os
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

_S3_FLAGS = {
    "s3_endpoint_url": "endpoint",
    "s3_access_key_id": "access_key_id",
    "s3_secret_access_key": "secret_access_key",
    "s3_session_token": "session_token",
    "s3_region_name": "region",
}
_AWS_NAMES = {  # in the files of AWS's tools
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
_KEYS_ELSEWHERE = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
GCS_EMULATOR = "STORAGE_EMULATOR_HOST"  # the variable that Google's own libraries read


def connect(options: PipelineOptions) -> None:
    """Makes Beam's storage flags known in this process, to Beam's file systems too; workers get them from Beam."""
    FileSystems.set_options(options)


def storage_flags(options: PipelineOptions) -> dict[str, Any]:
    """Returns Beam's flags for object stores, which worker processes must get too."""
    given = options.get_all_options()
    return {name: given[name] for name in _S3_FLAGS if name in given}


def s3_settings() -> dict[str, Any]:
    """Returns what obstore's S3Store needs besides the bucket; what is missing it takes from AWS_* variables."""
    options = getattr(FileSystems, "_pipeline_options", None)  # `set_options` has no public counterpart
    flags = storage_flags(options) if isinstance(options, PipelineOptions) else {}
    given = {name: flags[flag] for flag, name in _S3_FLAGS.items() if flags.get(flag)}
    if "access_key_id" not in given and not any(os.environ.get(name) for name in _KEYS_ELSEWHERE):
        given = {**_aws_profile(), **given}
    return {"checksum_algorithm": "sha256", **given}  # the store refuses an object that was damaged on its way


def gcs_settings() -> dict[str, Any]:
    """Returns what obstore's GCSStore needs besides the bucket; by default Google's usual credentials."""
    host = os.environ.get(GCS_EMULATOR)
    if not host:
        return {}
    url = host if "://" in host else f"http://{host}"
    anonymous = {
        "gcs_base_url": url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    return {"service_account_key": json.dumps(anonymous)}


def _aws_profile() -> dict[str, Any]:
    """Returns the settings of the chosen profile in `~/.aws`, as far as they are plain keys."""
    profile = os.environ.get("AWS_PROFILE", "default")
    found: dict[str, Any] = {}
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", "default" if profile == "default" else f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(os.environ.get(variable) or Path("~/.aws").expanduser() / name)
        if parser.has_section(section) or section == "default":
            values = dict(parser.items(section)) if parser.has_section(section) else {}
            found |= {ours: values[theirs] for theirs, ours in _AWS_NAMES.items() if theirs in values}
    return found
