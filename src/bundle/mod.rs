//! Patch bundles: names, bounded reading, manifests, module signatures. Pure: bytes in, values out.
