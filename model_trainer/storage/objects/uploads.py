"""Uploads in parts that a killed process left unfinished: invisible, but stored and paid for."""

from __future__ import annotations

from typing import Any

from absl import logging

from model_trainer.storage.objects.connection import s3_client
from model_trainer.storage.objects.urls import ObjectUrl

__all__ = ["abort_uploads"]


def abort_uploads(url: ObjectUrl) -> int:
    """Aborts the unfinished uploads below a folder; only for whoever holds its lock.

    Returns:
        Their number; 0 also without permission to list them.
    """
    if url.scheme != "s3" or not url.key:
        return 0
    from botocore.exceptions import BotoCoreError, ClientError

    count = 0
    try:
        client = s3_client(url)
        for upload in _uploads_below(client, url):
            client.abort_multipart_upload(Bucket=url.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            count += 1
    except (BotoCoreError, ClientError) as error:
        logging.debug("Unfinished uploads below %s/%s are not removed: %s", url.root, url.key, type(error).__name__)
    if count:
        logging.info("Removed %d unfinished uploads below %s/%s.", count, url.root, url.key)
    return count


def _uploads_below(client: Any, url: ObjectUrl) -> list[dict[str, str]]:
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=url.bucket, Prefix=f"{url.key}/")
    return [upload for page in pages for upload in page.get("Uploads", ())]
