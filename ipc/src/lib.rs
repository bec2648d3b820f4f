//! Shared-memory segments, rings, arenas, doorbells and channels.
