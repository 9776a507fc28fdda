"""Multipart uploads that a killed process left unfinished: invisible, but stored and billed."""

from __future__ import annotations

import contextlib
from typing import Any

from absl import logging

from model_trainer.storage.objects.connection import Bucket
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["abort_uploads", "abort_uploads_of"]


def abort_uploads(bucket: Bucket, url: ObjectUrl) -> int:
    """Aborts the unfinished uploads below a folder, whose lock the caller has to hold.

    Returns:
        Their number; 0 also without permission to list them.
    """
    client = bucket.client
    if client is None or not url.key:
        return 0
    from botocore.exceptions import BotoCoreError, ClientError

    count = 0
    try:
        for upload in _uploads_below(client, url):
            client.abort_multipart_upload(Bucket=url.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            count += 1
    except (BotoCoreError, ClientError) as error:
        logging.debug("Unfinished uploads below %s/%s are not removed: %s", url.root, url.key, type(error).__name__)
    if count:
        logging.info("Removed %d unfinished uploads below %s/%s.", count, url.root, url.key)
    return count


def abort_uploads_of(bucket: Bucket, url: ObjectUrl) -> None:
    """Aborts the unfinished uploads of one object, before it is written; does nothing without permission."""
    if bucket.client is None:
        return
    from botocore.exceptions import BotoCoreError, ClientError

    with contextlib.suppress(BotoCoreError, ClientError):
        for upload in bucket.client.list_multipart_uploads(Bucket=url.bucket, Prefix=url.key).get("Uploads", ()):
            if upload["Key"] == url.key:
                bucket.client.abort_multipart_upload(Bucket=url.bucket, Key=url.key, UploadId=upload["UploadId"])


def _uploads_below(client: Any, url: ObjectUrl) -> list[dict[str, str]]:
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=url.bucket, Prefix=f"{url.key}/")
    return [upload for page in pages for upload in page.get("Uploads", ())]
