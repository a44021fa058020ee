"""The content-addressed store of the daemon. See `store.py` for the tree on disk."""

from cupolad.store.batch import Batch, BlobWriter, StoreLimits
from cupolad.store.store import Store, StoreTotals

__all__ = ["Batch", "BlobWriter", "Store", "StoreLimits", "StoreTotals"]
