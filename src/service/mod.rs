//! What the server does, one file per service; the only layer that joins database, objects and engine.
