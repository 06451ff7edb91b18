//! Objects: storage backends, typed keys, verification on read, the cache.
