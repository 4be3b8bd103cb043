"""Opens an object store by its URL."""

from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options


def open_store(url: str, options: S3Options | None = None) -> ObjectStore:
    """Open the store at ``url``: ``s3://bucket/prefix``, or a local folder, which is created by the first write."""
    if url.startswith("s3://"):
        from bandscope_dagster.storage.objects.s3 import S3Store

        return S3Store(url, options or S3Options())
    if not url or "://" in url:
        raise ValueError(f"{url!r} is not a store; use a local folder or s3://bucket/prefix")
    from bandscope_dagster.storage.objects.local import LocalStore

    return LocalStore(url)
