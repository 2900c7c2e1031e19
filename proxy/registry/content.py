"""Content that came whole, put where blobs are: manifests. No download, no permissions."""

from proxy.oci.digest import Digest
from proxy.ports import BlobStore, Lead


async def keep_content(store: BlobStore, digest: Digest, content: bytes) -> None:
    """Put verified content in the store. What somebody else is writing under this digest is left to them.

    Raises OSError.
    """
    claimed = store.claim(digest, lambda: None)
    if isinstance(claimed, Lead) and claimed.offset:
        await claimed.close(discard=True)
        claimed = store.claim(digest, lambda: None)
    if not isinstance(claimed, Lead) or claimed.offset:
        await claimed.close(discard=False) if isinstance(claimed, Lead) else claimed.close()
        return
    sealed = False
    try:
        await claimed.write(content)
        sealed = await claimed.seal()
        if sealed:
            await claimed.publish()
    finally:
        await claimed.close(discard=not sealed)
